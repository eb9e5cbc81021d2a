// The page: it draws the samples that the server sends as events. It sends nothing itself.
import { render } from 'preact'
import { App, type Status } from './app.js'
import { forgetColours } from './colours.js'
import { moment } from './format.js'
import { onRefresh, refresh } from './refresh.js'
import { addEarlier, begin, store, update } from './store.js'
import { watchTips } from './tip.js'
import { isRejecting } from './trouble.js'
import { readAddress } from './view.js'

/**
 * After how long without an event the connection counts as lost, in ms. Events come once a second.
 */
const SILENCE = 4000

/** How long to wait before connecting again, in ms. */
const RETRY = 2000

/** How long the samples of the time before wait for those of now to be drawn, in ms. */
const LATER = 300

let status: Status = { state: 'connecting', text: 'Connecting…' }
/** Grows with each sample. */
let tick = 0

function say(state: Status['state'], text: string): void {
	status = { state, text }
	document.body.dataset.state = state
	refresh()
}

let source: EventSource | undefined
let silence = 0
let retry = 0

function connect(): void {
	clearTimeout(retry)
	source?.close()
	const own = new EventSource('events')
	source = own
	source.addEventListener('begin', ({ data }) => hear(begin, data))
	// It is long, so what is now is drawn first.
	source.addEventListener('earlier', ({ data }) => {
		setTimeout(() => source === own && hear(addEarlier, data), LATER)
	})
	source.addEventListener('message', ({ data }) => hear(update, data))
	source.addEventListener('rejected', ({ data }) => {
		source?.close()
		again(`${JSON.parse(data).reason} Trying again…`, 5 * RETRY)
	})
	// After some errors it would connect again by itself, after others never. So this is done here.
	source.addEventListener('error', () => {
		source?.close()
		again(lost(), RETRY)
	})
	listen()
}

/** An event has come. */
function hear<T>(take: (data: T) => void, data: string): void {
	take(JSON.parse(data))
	tick++
	listen()
	say('live', 'Live')
	const latest = store.times.length - 1
	const rejecting = store.limiters.filter((limiter) => isRejecting(limiter, latest)).length
	document.title = rejecting > 0 ? `${rejecting} rejecting – Limits` : 'Limits'
}

/** If the next event does not come in time, the connection is lost, whatever the browser says. */
function listen(): void {
	clearTimeout(silence)
	silence = setTimeout(() => again(lost(), 0), SILENCE)
}

/** What is on the page was true some time ago. */
function lost(): string {
	const last = store.times.at(-1)
	const age = last === undefined ? '' : ` All figures are those of ${moment(last)}.`
	return `Connection lost.${age} Trying again…`
}

function again(text: string, ms: number): void {
	say('lost', text)
	clearTimeout(silence)
	clearTimeout(retry)
	retry = setTimeout(connect, ms)
}

const root = document.getElementById('app') as HTMLElement
onRefresh(() => render(<App status={status} tick={tick} />, root))
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
	forgetColours()
	refresh()
})
addEventListener('keydown', (event) => {
	if (event.key !== '/' || (event.target instanceof Element && event.target.matches('input')))
		return
	event.preventDefault()
	document.querySelector<HTMLElement>('input[type="search"]')?.focus()
})
watchTips()
readAddress()
refresh()
connect()
