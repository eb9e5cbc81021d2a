// What a panel lists: keys, and the decisions of a controller.
import { bound, count, duration, moment } from './format.js'
import type { Word } from './glossary.js'
import { Key } from './key.js'
import type { Range } from './range.js'
import { type Limiter, store } from './store.js'
import { Term } from './tip.js'

const SHOWN = 5

function KeyList({
	word,
	title,
	keys,
	none,
}: {
	word: Word
	title: string
	keys: [string, string][]
	none: string
}) {
	return (
		<div>
			<h2>
				<Term word={word}>{title}</Term>
			</h2>
			{keys.length === 0 && <p class="note">{none}</p>}
			<ol>
				{keys.map(([key, figure]) => (
					<li key={key}>
						<Key text={key} /> <span class="figure">{figure}</span>
					</li>
				))}
			</ol>
		</div>
	)
}

export function Keys({ limiter, range }: { limiter: Limiter; range: Range }) {
	if (!store.keys) {
		return (
			<p class="note">
				Which keys they are is shown with the option <code>keys: true</code> of the dashboard. Keys
				may be personal data.
			</p>
		)
	}
	const waits = new Map<string, number>()
	const counts = new Map<string, number>()
	for (const sample of limiter.samples.slice(range.from, range.to + 1)) {
		if (sample === undefined || sample.more === 0) continue
		for (const [key, ms] of sample.more.longest ?? [])
			waits.set(key, Math.max(ms, waits.get(key) ?? 0))
		for (const [key, n] of sample.more.rejected ?? []) counts.set(key, n + (counts.get(key) ?? 0))
	}
	const top = (all: Map<string, number>, figure: (value: number) => string): [string, string][] =>
		[...all]
			.sort(([, a], [, b]) => b - a)
			.slice(0, SHOWN)
			.map(([key, value]) => [key, figure(value)])
	const busiest = (limiter.totals.busiest ?? []).map(
		([key, active, queued, capacity]): [string, string] => [
			key,
			`${count(active)} of ${bound(capacity)} at work${queued > 0 ? `, ${count(queued)} waiting` : ''}`,
		],
	)
	return (
		<div class="lists">
			<KeyList word="busiest" title="Busiest keys now" keys={busiest} none="No key is in use." />
			<KeyList
				word="mostRejected"
				title="Keys rejected most"
				keys={top(counts, (n) => `${count(n)} rejected`)}
				none="No key was rejected."
			/>
			<KeyList
				word="longest"
				title="Keys that waited longest"
				keys={top(waits, duration)}
				none="No key has waited."
			/>
		</div>
	)
}

export function Decisions({ limiter, range }: { limiter: Limiter; range: Range }) {
	const decisions: { time: number; before: number | null; capacity: number | null; why: string }[] =
		[]
	for (let i = range.to; i > 0 && decisions.length < SHOWN; i--) {
		const sample = limiter.samples[i]
		const before = limiter.samples[i - 1]
		if (sample === undefined || before === undefined || sample.capacity === before.capacity)
			continue
		const why = (sample.more !== 0 && sample.more.why) || ''
		decisions.push({
			time: store.times[i] as number,
			before: before.capacity,
			capacity: sample.capacity,
			why,
		})
	}
	return (
		<div class="lists">
			<div>
				<h2>
					<Term word="decisions">Why this capacity</Term>
				</h2>
				{decisions.length === 0 && <p class="note">The capacity has not changed.</p>}
				<ol class="decisions">
					{decisions.map(({ time, before, capacity, why }) => (
						<li key={time}>
							<span class="time">{moment(time)}</span>{' '}
							<b>
								{bound(before)} → {bound(capacity)}
							</b>{' '}
							{why}
						</li>
					))}
				</ol>
			</div>
		</div>
	)
}
