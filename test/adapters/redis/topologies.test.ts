import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster, Redis } from 'ioredis'
import { createClient, createCluster, createSentinel } from 'redis'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type RedisClient, redisLimiter } from '../../../adapters/redis/index.js'
import {
	acquire,
	decode,
	encode,
	join as joinFleet,
	keysOf,
	type Request,
	release,
	renew,
	type Speaker,
} from '../../../adapters/redis/protocol.js'
import { SCRIPT } from '../../../adapters/redis/script.js'
import {
	ALWAYS,
	describeRedis,
	endAll,
	freePort,
	later,
	newFolder,
	type Server,
	servers,
	startSentinel,
	startServer,
	startWorker,
	WHEN_BUSY,
} from '../../support/redis.js'

vi.spyOn(process, 'emitWarning').mockImplementation(() => {})

/** Each with servers of its own, beside the others. */
const BESIDE = { concurrent: true, retry: WHEN_BUSY }

/** Never more at work than the capacity, though all clients want more, and none is rejected. */
async function check(clients: RedisClient[], name: string): Promise<void> {
	const limiters = clients.map((client) =>
		redisLimiter({ client, name, capacity: 2, lease: 4_000, redisTimeout: 1_000 }),
	)
	await Promise.all(limiters.map((limiter) => vi.waitFor(() => limiter.run(() => {}), 10_000)))
	const before = limiters.map((limiter) => limiter.stats().rejected)
	let active = 0
	let most = 0
	const work = async (i: number): Promise<void> => {
		await limiters[i % limiters.length]?.run(async () => {
			most = Math.max(most, ++active)
			await sleep(5)
			active--
		})
	}
	await Promise.all(Array.from({ length: 60 }, (_, i) => work(i)))
	expect(most, ALWAYS).toBe(2)
	expect(limiters.map((limiter) => limiter.stats().rejected)).toEqual(before)
	for (const limiter of limiters) {
		limiter.close()
		await limiter.onIdle()
	}
}

/**
 * Through a failover shorter than the lease: holders count, waiters keep their places,
 * and then all goes on.
 */
async function checkFailover(
	clients: RedisClient[],
	name: string,
	failOver: () => Promise<unknown>,
): Promise<void> {
	const size = clients.length
	const limiters = clients.map((client) =>
		redisLimiter({ client, name, capacity: size, lease: 8_000, redisTimeout: 500 }),
	)
	const held = await Promise.all(limiters.map((limiter) => limiter.acquire()))
	await vi.waitFor(
		() => expect(limiters.every((one) => one.stats().fleet.processes === size)).toBe(true),
		5_000,
	)
	let active = held.length
	let most = 0
	const waiting = limiters.map(async (limiter) => {
		const permit = await limiter.acquire()
		most = Math.max(most, ++active)
		return permit
	})
	await sleep(100)
	await failOver()
	await vi.waitFor(() => expect(limiters.some(({ available }) => !available)).toBe(true), 5_000)
	await vi.waitFor(() => expect(limiters.every(({ available }) => available)).toBe(true), 15_000)
	await sleep(500)
	expect(most).toBe(0)
	expect(limiters.map(({ queued }) => queued)).toEqual(limiters.map(() => 1))
	for (const permit of held) {
		active--
		expect(permit.signal.aborted).toBe(false)
		permit.release()
	}
	for (const permit of await Promise.all(waiting)) {
		active--
		permit.release()
	}
	expect(most).toBe(size)
	for (const limiter of limiters) {
		limiter.close()
		await limiter.onIdle()
	}
	await check(clients, name)
}

/** Until a replica has all that its master has. */
async function synced({ port }: Server): Promise<void> {
	const replica = new Redis(port)
	await vi.waitFor(
		async () => expect(await replica.info()).toMatch(/master_link_status:up/),
		20_000,
	)
	replica.disconnect()
}

afterAll(endAll)

/** Otherwise a master waits for more replicas, for 5 s. */
const AT_ONCE = ['--repl-diskless-sync-delay', '0']

describeRedis.each(servers)('%s, a cluster of three nodes', BESIDE, (binary) => {
	let nodes: Server[] = []
	let replica: Server
	let probe: Server
	let one: Cluster
	let sharded: Cluster
	let other: ReturnType<typeof createCluster>
	const cli = (...args: string[]): string =>
		execFileSync(binary.replace('-server', '-cli'), args, { encoding: 'utf8' })

	beforeAll(async () => {
		const options = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '1000', ...AT_ONCE]
		nodes = await Promise.all([1, 2, 3].map(() => startServer(options, binary)))
		const ports = nodes.map(({ port }) => `127.0.0.1:${port}`)
		cli('--cluster', 'create', ...ports, '--cluster-yes')
		replica = await startServer(options, binary)
		probe = await startServer([], binary)
		await sleep(3_000)
		const port = nodes[0]?.port as number
		one = new Cluster([{ host: '127.0.0.1', port }])
		one.on('error', () => {})
		sharded = new Cluster([{ host: '127.0.0.1', port }], { shardedSubscribers: true })
		sharded.on('error', () => {})
		other = createCluster({
			rootNodes: nodes.map(({ port }) => ({ url: `redis://127.0.0.1:${port}` })),
		})
		other.on('error', () => {})
		await other.connect()
	})
	afterAll(() => {
		one.disconnect()
		sharded.disconnect()
		other.destroy()
	})

	test.each(['renders', 'a}b{c', 'partner'])('%s, through both clients at once', (name) =>
		check([one, sharded, other], name),
	)

	test.each(['redis', 'ioredis'] as const)('%s: a killed waiter delays nobody', async (kind) => {
		const client = kind === 'redis' ? other : sharded
		const options = { name: `killed ${kind}`, capacity: 1, lease: 8_000, redisTimeout: 1_000 }
		const limiter = redisLimiter({ client: client as RedisClient, ...options })
		const held = await limiter.acquire()
		const queued = (count: number) =>
			vi.waitFor(
				async () => expect(await one.zcard(`inflight:{killed%20${kind}}:queue`)).toBe(count),
				5_000,
			)
		const cluster = nodes.map(({ port }) => port)
		const worker = await startWorker({
			kind,
			cluster,
			probePort: probe.port,
			concurrency: 1,
			hold: 60_000,
			options,
		})
		await queued(1)
		const waiting = later(limiter.acquire())
		await queued(2)
		await worker.kill()
		await sleep(50)
		const since = performance.now()
		held.release()
		const next = await waiting
		const took = performance.now() - since
		process.stdout.write(
			`      SIGKILL of the first waiter, ms until the next is in: ${took.toFixed(1)}\n`,
		)
		expect(took).toBeLessThan(1_000)
		next.release()
		limiter.close()
		await limiter.onIdle()
	})

	test.each(['redis', 'ioredis'] as const)(
		'%s: a channel that the client lost is subscribed to again',
		async (kind) => {
			const client = (kind === 'redis' ? other : sharded) as RedisClient
			const options = { name: `lost-${kind}`, capacity: 1, lease: 4_000, redisTimeout: 1_000 }
			const limiter = redisLimiter({ client: one, ...options })
			const held = await limiter.acquire()
			const loser = redisLimiter({ client, ...options })
			const waiting = later(loser.acquire())
			const key = `inflight:{lost-${kind}}`
			await vi.waitFor(async () => expect(await one.zcard(`${key}:queue`)).toBe(1), 5_000)
			const found = await Promise.all(
				one.nodes('master').map((node) => node.pubsub('SHARDCHANNELS', `${key}:*`)),
			)
			const [channel] = found.flat() as [string]
			await (kind === 'redis' ? other.sUnsubscribe(channel) : sharded.sunsubscribe(channel))
			held.release()
			const { token, release } = await waiting
			// Not alone: Redis gave it.
			expect(token).toBeGreaterThan(held.token)
			release()
			for (const each of [limiter, loser]) {
				each.close()
				await each.onIdle()
			}
		},
	)

	// When the others are over.
	test.sequential('its node is killed, and the replica takes over', async () => {
		const slot = Number(await one.cluster('KEYSLOT', 'inflight:{moved}'))
		const slots = (await one.call('CLUSTER', 'SLOTS')) as [
			number,
			number,
			[string, number, string],
		][]
		const [, , [, port, id]] = slots.find(
			([from, to]) => from <= slot && slot <= to,
		) as (typeof slots)[0]
		const added = [`127.0.0.1:${replica.port}`, `127.0.0.1:${port}`]
		cli('--cluster', 'add-node', ...added, '--cluster-slave', '--cluster-master-id', id)
		await synced(replica)
		await checkFailover(
			[one, sharded, other],
			'moved',
			() => nodes.find((node) => node.port === port)?.kill() as Promise<void>,
		)
	})
})

describeRedis.each(servers)('%s, watched over by a sentinel', BESIDE, (binary) => {
	test('its master is killed, and the replica takes over', async () => {
		const master = await startServer(AT_ONCE, binary)
		const replica = await startServer(['--replicaof', '127.0.0.1', String(master.port)], binary)
		await sleep(3_100)
		await synced(replica)
		const { port } = await startSentinel(master, binary)
		const sentinels = [{ host: '127.0.0.1', port }]
		const one = new Redis({ sentinels, name: 'main' })
		one.on('error', () => {})
		const other = createSentinel({ name: 'main', sentinelRootNodes: sentinels })
		other.on('error', () => {})
		await other.connect()
		await check([one, other], 'before')
		await checkFailover([one, other], 'failover', () => master.kill())
		expect(await one.info('server')).toContain(`tcp_port:${replica.port}`)
		one.disconnect()
		await other.destroy()
	})
})

describeRedis.each(servers)('%s, through TLS', BESIDE, (binary) => {
	test('both clients at once', async () => {
		const folder = newFolder()
		const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')]
		const made = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', cert]
		const names = ['-subj', '/CN=redis', '-addext', 'subjectAltName=IP:127.0.0.1']
		execFileSync('openssl', [...made, ...names], { stdio: 'ignore' })
		const port = await freePort()
		const files = ['--tls-key-file', key, '--tls-cert-file', cert, '--tls-ca-cert-file', cert]
		await startServer(['--tls-port', String(port), '--tls-auth-clients', 'no', ...files], binary)
		const ca = readFileSync(cert)
		const one = new Redis({ host: '127.0.0.1', port, tls: { ca } })
		const other = createClient({ socket: { host: '127.0.0.1', port, tls: true, ca } })
		other.on('error', () => {})
		await other.connect()
		await check([one, other], 'secret')
		one.disconnect()
		other.destroy()
	})
})

describeRedis.each(servers)('%s, and a replica that takes over by hand', BESIDE, (binary) => {
	test('holders count before newcomers are admitted', async () => {
		const master = await startServer(AT_ONCE, binary)
		const replica = await startServer([], binary)
		const direct = new Redis(replica.port)
		await direct.replicaof('127.0.0.1', master.port)
		await synced(replica)
		const client = new Redis({
			host: '127.0.0.1',
			port: master.port,
			retryStrategy: () => {
				client.options.port = replica.port
				return 20
			},
		})
		client.on('error', () => {})
		await sleep(3_100)
		const limiter = redisLimiter({
			client,
			name: 'failover',
			capacity: 3,
			lease: 1_000,
			redisTimeout: 250,
		})
		const held = [await limiter.acquire(), await limiter.acquire(), await limiter.acquire()]
		await sleep(100)
		await direct.replicaof('NO', 'ONE')
		await master.kill()
		await sleep(600)
		const order: string[] = []
		const waiting = limiter.acquire().then((permit) => {
			order.push('waited')
			return permit
		})
		await sleep(400)
		expect(order).toEqual([])
		expect(Number(await direct.exists('inflight:{failover}'))).toBe(1)
		for (const permit of held) permit.release()
		;(await waiting).release()
		limiter.close()
		await limiter.onIdle()
		client.disconnect()
		direct.disconnect()
	})

	test('a master that comes back with the data of a replica that was behind', async () => {
		const master = await startServer(AT_ONCE, binary)
		const replica = await startServer(AT_ONCE, binary)
		const [client, admin, behind] = [master, master, replica].map(({ port }) => new Redis(port))
		const clients = [client, admin, behind] as Redis[]
		// Redis is old enough to be trusted.
		await sleep(3_100)
		const options = { name: 'behind', capacity: 2, lease: 8_000, redisTimeout: 2_000 }
		const holder = redisLimiter({ client: client as Redis, ...options })
		await holder.run(() => {})
		await behind?.replicaof('127.0.0.1', master.port)
		await synced(replica)
		await behind?.replicaof('NO', 'ONE')
		const held = [await holder.acquire(), await holder.acquire()]
		await admin?.replicaof('127.0.0.1', replica.port)
		await synced(master)
		await admin?.replicaof('NO', 'ONE')
		const newcomer = redisLimiter({ client: admin as Redis, ...options })
		await expect(newcomer.acquire({ maxWait: 500 }), ALWAYS).rejects.toThrow()
		for (const permit of held) {
			expect(permit.signal.aborted).toBe(false)
			permit.release()
		}
		for (const limiter of [holder, newcomer]) {
			limiter.close()
			await limiter.onIdle()
		}
		for (const one of clients) one.disconnect()
	})
})

describeRedis.each(servers)('%s, when messages come from a replica', BESIDE, (binary) => {
	const clients: Redis[] = []
	let master: Server
	let replica: Server

	/** A client of the master. */
	function connect(port = master.port): Redis {
		const client = new Redis(port)
		clients.push(client)
		return client
	}

	beforeAll(async () => {
		master = await startServer(AT_ONCE, binary)
		replica = await startServer(['--replicaof', '127.0.0.1', String(master.port)], binary)
		await synced(replica)
	})
	afterAll(() => {
		for (const client of clients) client.disconnect()
	})

	test('no message is sent to a waiter that is passed over', async () => {
		const admin = connect()
		const keys = keysOf('unseen', false)
		const holder = { process: 'pholder', session: 1 }
		const waiter = { process: 'pwaiter', session: 1 }
		const ask = async <Answer>(by: Speaker, request: Request<Answer>): Promise<Answer> =>
			decode(request, await admin.eval(SCRIPT, 3, ...keys, ...encode(request, by))) as Answer
		const joining = {
			lease: 60_000,
			ttl: 60_000,
			absence: 0,
			youth: 0,
			generation: '',
			configured: 1,
			resizing: undefined,
			token: 0,
			capacity: 1,
			secret: 'secret',
			policy: false,
		}
		const claim = { id: 'a', weight: 1, account: '', ticket: 0 }
		await ask(holder, joinFleet({ ...joining, held: [claim] }))
		// The grace is over.
		await ask(holder, renew(60_000, 60_000, []))
		const joined = await ask(waiter, joinFleet({ ...joining, held: [] }))
		expect(joined).toMatchObject({ fleet: { active: 1, heard: false } })
		const queued = await ask(waiter, acquire(claim, { maxQueue: 1, lease: 60_000 }))
		expect(queued).toMatchObject({ is: 'queued' })
		const channel = `${keys[0]}:pwaiter`
		const subscriber = connect(replica.port)
		const messages: string[] = []
		subscriber.on('message', (_, text) => messages.push(text))
		await subscriber.subscribe(channel)
		expect(await ask(holder, release(claim))).toBe(0)
		// Messages come in order.
		await admin.publish(channel, 'last')
		await vi.waitFor(() => expect(messages).toContain('last'))
		expect(messages, ALWAYS).toEqual(['last'])
	})

	test('the connection for messages is opened anew, and leads to the master', async () => {
		const onReplica = connect(replica.port)
		const client = connect()
		const { duplicate } = client
		// As after a failover in which only the connection for commands went to the new master.
		client.duplicate = (override) => {
			client.duplicate = duplicate
			return onReplica.duplicate(override)
		}
		const admin = connect()
		const options = { name: 'apart', capacity: 1, lease: 4_000, redisTimeout: 1_000 }
		const apart = redisLimiter({ client, ...options })
		const other = redisLimiter({ client: admin, ...options })
		const held = await other.acquire()
		const waiting = later(apart.acquire())
		const heard = (): Promise<unknown> => admin.pubsub('CHANNELS', 'inflight:{apart}:p*')
		await vi.waitFor(async () => expect(await heard()).toHaveLength(2), 10_000)
		held.release()
		const permit = await waiting
		expect(permit.token).toBeGreaterThan(held.token)
		await expect(other.acquire({ maxWait: 0 }), ALWAYS).rejects.toThrow()
		permit.release()
		for (const limiter of [apart, other]) {
			limiter.close()
			await limiter.onIdle()
		}
		expect(await onReplica.pubsub('CHANNELS', 'inflight:{apart}:*')).toEqual([])
	})
})
