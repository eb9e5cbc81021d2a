import connect from 'connect'
import { limit } from 'inflight-limit/express'

const handle: connect.NextHandleFunction = limit(3)
connect()
	.use(handle)
	.use('/api', limit({ capacity: 3, skip: (req) => req.url === '/health' }))
