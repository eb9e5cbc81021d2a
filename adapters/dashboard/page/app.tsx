import { useMemo } from 'preact/hooks'
import { age, date, moment, rate } from './format.js'
import { shownRange } from './range.js'
import { refresh } from './refresh.js'
import { store } from './store.js'
import { byTrouble, type Entry, forgetOrder, show, sorted, Table, TROUBLE_TEXTS } from './table.js'
import { Glossary, Term } from './tip.js'
import { diagnose, TROUBLES } from './trouble.js'
import { view, WINDOWS, writeAddress } from './view.js'

export interface Status {
	state: 'connecting' | 'live' | 'lost'
	text: string
}

export function App({ status, tick }: { status: Status; tick: number }) {
	const range = shownRange()
	// It is the same while only the pointer moves.
	const all = useMemo(
		() =>
			store.limiters.map((limiter): Entry => ({ limiter, diagnosis: diagnose(limiter, range.to) })),
		[tick, range.to],
	)
	const entries = sorted(all, range.to)
	const known = store.process !== undefined && store.times.length > 0
	const [worst] = all.toSorted(byTrouble)
	// The worst one, if nothing else was chosen.
	if (known && worst !== undefined) view.open ??= new Set([worst.limiter.name])
	const find = view.find.toLowerCase()
	const shown = entries.filter(
		({ limiter, diagnosis }) =>
			(view.only === '' || diagnosis.trouble === view.only) &&
			limiter.name.toLowerCase().includes(find),
	)
	return (
		<>
			<header>
				<h1>Limits</h1>
				<p id="status" role="status" data-state={status.state}>
					{status.text}
				</p>
				<Identity />
				<Windows />
			</header>
			<main>
				<Changed />
				{known && (
					<>
						{worst !== undefined && <Worst {...worst} now={range.to} />}
						<Filters all={all} />
						{shown.length > 0 && <Table entries={shown} range={range} tick={tick} />}
						{all.length === 0 && <p class="note">There are no limiters to show.</p>}
						{all.length > 0 && shown.length === 0 && <p class="note">No limiter is like this.</p>}
					</>
				)}
			</main>
			<Glossary />
		</>
	)
}

/** Which process answers. */
function Identity() {
	const { process } = store
	if (process === undefined) return null
	const busy = store.busy.at(-1)
	return (
		<p id="process">
			<b>{process.host}</b> · pid {process.pid} · Node.js {process.node.slice(1)} · inflight-limit{' '}
			{process.version} · started{' '}
			<time dateTime={new Date(process.since).toISOString()} title={date(process.since)}>
				{age((store.times.at(-1) ?? 0) - process.since)} ago
			</time>{' '}
			· <Term word="busy">event loop</Term> {busy == null ? '–' : `${Math.round(busy * 100)} %`}{' '}
			busy
		</p>
	)
}

/** Another process answers than before. */
function Changed() {
	const { changed, process } = store
	if (changed === undefined || process === undefined) return null
	const { at, from, restarted } = changed
	return (
		<p class="changed" role="status">
			{restarted ? 'The process was restarted' : 'Another process answers now'} ({moment(at)}: pid{' '}
			{from.pid} on {from.host} → pid {process.pid} on {process.host}). Its counts start at 0. The
			charts mark the moment.{' '}
			<button
				type="button"
				onClick={() => {
					store.changed = undefined
					refresh()
				}}
			>
				Close
			</button>
		</p>
	)
}

function Windows() {
	return (
		<fieldset id="windows">
			<legend>Show the last</legend>
			{WINDOWS.map((minutes) => (
				<label>
					<input
						type="radio"
						name="window"
						value={minutes}
						checked={view.span === minutes * 60_000}
						onChange={() => {
							view.span = minutes * 60_000
							writeAddress()
							refresh()
						}}
					/>
					<span>{minutes} min</span>
				</label>
			))}
			<button
				type="button"
				id="pause"
				aria-pressed={view.end !== undefined}
				onClick={() => {
					if (view.end === undefined) view.end = store.times.at(-1)
					else {
						view.end = undefined
						if (!WINDOWS.includes(view.span / 60_000)) view.span = 60_000
					}
					refresh()
				}}
			>
				{view.end === undefined ? 'Pause' : `Paused at ${moment(view.end)} – go on`}
			</button>
		</fieldset>
	)
}

/** Which one is sick, since when, and why: whatever the table is sorted by. */
function Worst({ limiter, diagnosis, now }: Entry & { now: number }) {
	const { trouble, since, why } = diagnosis
	if (since === undefined) {
		return (
			<p id="worst" data-trouble="fine">
				No limiter is in trouble.
			</p>
		)
	}
	return (
		<p id="worst" data-trouble={trouble}>
			Worst:{' '}
			<button type="button" onClick={() => show(limiter)}>
				<bdi>{limiter.name}</bdi>
			</button>
			, <b>{TROUBLE_TEXTS[trouble].toLowerCase()}</b> since {moment(since)} (
			{age((store.times[now] ?? 0) - since)}). {why[0]}
		</p>
	)
}

/** How many are in which trouble; and the search. */
function Filters({ all }: { all: Entry[] }) {
	const rejections = all
		.filter(({ diagnosis }) => diagnosis.trouble === 'rejecting')
		.flatMap(({ diagnosis }) => diagnosis.rejections)
		.reduce((total, [, perSecond]) => total + perSecond, 0)
	return (
		<search id="filters">
			<input
				type="search"
				aria-label="Find a limiter by its name"
				placeholder="Find a limiter ( / )"
				value={view.find}
				onInput={({ currentTarget }) => {
					view.find = currentTarget.value
					writeAddress()
					refresh()
				}}
			/>
			{TROUBLES.map((trouble) => {
				const number = all.filter(({ diagnosis }) => diagnosis.trouble === trouble).length
				if (number === 0 && view.only !== trouble) return null
				return (
					<button
						type="button"
						data-trouble={trouble}
						aria-pressed={view.only === trouble}
						onClick={() => {
							view.only = view.only === trouble ? '' : trouble
							forgetOrder()
							writeAddress()
							refresh()
						}}
					>
						<span class="pill">
							{number} {TROUBLE_TEXTS[trouble].toLowerCase()}
						</span>
					</button>
				)
			})}
			<span class="note">{rejections > 0 && `${rate(rejections)} rejections a second in all`}</span>
		</search>
	)
}
