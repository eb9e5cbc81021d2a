import type { ComponentChildren } from 'preact'
import uPlot from 'uplot'
import { Chart, type Line } from './chart.js'
import { age, bound, count, counted, duration, moment, rate } from './format.js'
import type { Word } from './glossary.js'
import { Decisions, Keys } from './lists.js'
import { type Range, windowText } from './range.js'
import {
	type Counted,
	increase,
	type Limiter,
	REJECTIONS,
	type Sample,
	store,
	sum,
} from './store.js'
import { Term } from './tip.js'
import type { Diagnosis } from './trouble.js'

const stepped = uPlot.paths.stepped?.({ align: -1 })
const bars = uPlot.paths.bars?.({ size: [0.9, 40], align: -1 })

type Of = (sample: Sample) => number | null

/** All that is known of one limiter. */
export function Panel({
	limiter,
	range,
	diagnosis,
	id,
}: {
	limiter: Limiter
	range: Range
	diagnosis: Diagnosis
	id: string
}) {
	const now = limiter.samples[range.to]
	if (now === undefined) return <p class="note">Nothing is known of this limiter at this time.</p>
	const { settings } = limiter
	const keyed = settings?.keyed === true || now.keys > 0
	const { since, why } = diagnosis
	return (
		<section class="panel" aria-labelledby={id}>
			{why.length > 0 && (
				<p class="why">
					{since !== undefined && (
						<b>
							Since {moment(since)}, {age((store.times[range.to] ?? 0) - since)}:{' '}
						</b>
					)}
					{why.join(' ')}
				</p>
			)}
			<Tiles limiter={limiter} range={range} now={now} keyed={keyed} />
			<Charts limiter={limiter} range={range} keyed={keyed} />
			{keyed && <Keys limiter={limiter} range={range} />}
			{settings?.capacity === 'found' && !keyed && <Decisions limiter={limiter} range={range} />}
			<Figures limiter={limiter} range={range} now={now} />
		</section>
	)
}

function Tiles({
	limiter,
	range,
	now,
	keyed,
}: {
	limiter: Limiter
	range: Range
	now: Sample
	keyed: boolean
}) {
	const total = (field: Counted): number => sum(limiter, range.from, range.to, field)
	const rejected = total('rejected')
	const shared = limiter.settings?.capacity === 'shared'
	const dryRun = limiter.settings?.dryRun === true
	const since = windowText()
	const latest = limiter.samples
		.slice(range.from, range.to + 1)
		.findLast((sample) => sample?.holdP50 != null)
	const { loop, fleet, available } = now.more === 0 ? {} : now.more
	return (
		<dl class="tiles">
			<Tile word={shared ? 'shared' : 'active'} title="At work" figure={count(now.active)}>
				{shared && 'here, '}
				{keyed ? `in ${counted(now.keys, 'key')}` : `of ${bound(now.capacity)}`}
				{shared && !keyed && ' in all'}
			</Tile>
			<Tile word="queued" title="Waiting" figure={count(now.queued)}>
				{now.maxQueue !== null &&
					(keyed ? `at most ${count(now.maxQueue)} a key` : `of ${count(now.maxQueue)}`)}
			</Tile>
			{keyed && (
				<Tile word="keys" title="Keys at their limit" figure={count(now.saturated)}>
					of {count(now.keys)} in use
					{now.capacity !== null && `, ${counted(now.capacity, 'permit')} each`}
				</Tile>
			)}
			<Tile
				word="rejected"
				title={dryRun ? 'Would be rejected' : 'Rejected'}
				figure={count(rejected)}
				alert={rejected > 0 && !dryRun}
			>
				{since}
			</Tile>
			<Tile word="left" title="Left the queue" figure={count(total('aborted'))}>
				{since}
			</Tile>
			<Tile
				word="abandoned"
				title="Abandoned"
				figure={now.leftBehind === null ? 'not counted' : count(now.leftBehind)}
				alert={now.leftBehind !== null && now.leftBehind > 0}
			>
				{now.leftBehind !== null && 'now, '}
				{count(total('abandoned'))} ended {since}
			</Tile>
			<Tile word="hold" title="Hold p50 / p99" figure={duration(latest?.holdP50)}>
				/ {duration(latest?.holdP99)}, last second
			</Tile>
			{loop !== undefined && (
				<Tile word="loop" title="Event loop" figure={duration(loop.delay)} alert={loop.overloaded}>
					{loop.overloaded ? 'late: it rejects because of that' : 'late: no reason to reject'}
				</Tile>
			)}
			{fleet !== undefined && (
				<Tile word="fleet" title="Fleet" figure={count(fleet.active)} alert={available === false}>
					at work, {count(fleet.queued)} waiting, {count(fleet.processes)}{' '}
					{fleet.processes === 1 ? 'process' : 'processes'}
					{available === false && '; Redis does not answer'}
				</Tile>
			)}
		</dl>
	)
}

function Tile({
	word,
	title,
	figure,
	alert = false,
	children,
}: {
	word: Word
	title: string
	figure: string
	alert?: boolean
	children?: ComponentChildren
}) {
	return (
		<div class={alert ? 'alert' : ''}>
			<dt>
				<Term word={word}>{title}</Term>
			</dt>
			<dd data-figure={word}>
				{figure} <small>{children}</small>
			</dd>
		</div>
	)
}

function Charts({ limiter, range, keyed }: { limiter: Limiter; range: Range; keyed: boolean }) {
	const { name, samples } = limiter
	const at =
		(of: Of) =>
		(i: number): number | null => {
			const sample = samples[i]
			return sample === undefined ? null : of(sample)
		}
	const step: uPlot.Series = stepped ? { paths: stepped } : {}
	const load: Line[] = [
		{
			text: 'waiting',
			colour: 'queued',
			at: at(({ active, queued }) => active + queued),
			value: (i) => count(samples[i]?.queued),
			series: { ...step, fill: 'queued-area' },
		},
		{
			text: 'at work',
			colour: 'active',
			at: at(({ active }) => active),
			value: (i) => count(samples[i]?.active),
			series: { ...step, fill: 'active-area' },
		},
	]
	if (!keyed) {
		load.push({
			text: 'capacity',
			word: 'capacity',
			colour: 'capacity',
			thin: true,
			at: at(({ capacity }) => capacity),
			value: (i) => bound(samples[i] === undefined ? undefined : samples[i].capacity),
			series: { ...step, dash: [6, 4] },
		})
	}
	const seen = REJECTIONS.filter((reason) => sum(limiter, range.from, range.to, reason) > 0)
	// Each is the sum of its reason and all later ones. Drawn in this order, they look stacked.
	const rejections: Line[] = REJECTIONS.map((reason, n) => ({
		text: reason,
		word: reason,
		colour: reason,
		at: (i) =>
			REJECTIONS.slice(n).reduce((all, each) => all + (increase(limiter, i, each) ?? 0), 0),
		...(seen.includes(reason) && { value: (i) => count(increase(limiter, i, reason)) }),
		series: { fill: reason, width: 0, ...(bars && { paths: bars }) },
	}))
	rejections.push({
		text: 'clients left',
		word: 'left',
		colour: 'aborted',
		thin: true,
		at: (i) => increase(limiter, i, 'aborted') ?? null,
		value: (i) => count(increase(limiter, i, 'aborted')),
		series: step,
	})
	const times = (kind: 'wait' | 'hold'): Line[] =>
		(['P99', 'P90', 'P50'] as const).map((part) => ({
			text: part.toLowerCase(),
			colour: part.toLowerCase(),
			thin: true,
			at: at((sample) => sample[`${kind}${part}`]),
			value: (i) => duration(samples[i]?.[`${kind}${part}`]),
			series: { points: { size: 3 } },
		}))
	const BANDS: uPlot.Band[] = [
		{ series: [1, 2], fill: 'band-99' },
		{ series: [2, 3], fill: 'band-90' },
	]
	return (
		<div class="charts">
			<Chart
				title="Load"
				unit="requests"
				word="load"
				limiter={name}
				range={range}
				lines={load}
				bands={[{ series: [1, 2] }]}
				ticks={count}
				whole
			/>
			<Chart
				title="Rejections"
				unit="requests a second"
				word="rejected"
				limiter={name}
				range={range}
				lines={rejections}
				ticks={count}
				whole
			/>
			<Chart
				title="Wait"
				unit="p50, p90 and p99 of each second"
				word="wait"
				limiter={name}
				range={range}
				lines={times('wait')}
				bands={BANDS}
				ticks={duration}
			/>
			<Chart
				title="Hold"
				unit="p50, p90 and p99 of each second"
				word="hold"
				limiter={name}
				range={range}
				lines={times('hold')}
				bands={BANDS}
				ticks={duration}
			/>
		</div>
	)
}

const COUNTS: [Counted, Word, string][] = [
	['admitted', 'admitted', 'Admitted'],
	['completed', 'completed', 'Completed'],
	['abandoned', 'abandoned', 'Abandoned'],
	['aborted', 'left', 'Left the queue'],
	...REJECTIONS.map((reason): [Counted, Word, string] => [reason, reason, `Rejected: ${reason}`]),
]

const TIMES = ['p50', 'p90', 'p99', 'max'] as const

/** The figures of `stats()`. */
function Figures({ limiter, range, now }: { limiter: Limiter; range: Range; now: Sample }) {
	const seconds = Math.max(
		1,
		((store.times[range.to] ?? 0) - (store.times[range.from] ?? 0)) / 1000,
	)
	const { totals } = limiter
	return (
		<details>
			<summary>All figures</summary>
			<div class="lists">
				<table class="figures">
					<thead>
						<tr>
							<th scope="col">Requests</th>
							<th scope="col">Shown time</th>
							<th scope="col">A second</th>
							<th scope="col">Since the start</th>
						</tr>
					</thead>
					<tbody>
						{COUNTS.map(([field, word, title]) => {
							const shown = sum(limiter, range.from, range.to, field)
							return (
								<tr>
									<th scope="row">
										<Term word={word}>{title}</Term>
									</th>
									<td data-figure={`window.${field}`}>{count(shown)}</td>
									<td>{rate(shown / seconds)}</td>
									<td data-figure={`start.${field}`}>{count(now[field])}</td>
								</tr>
							)
						})}
					</tbody>
				</table>
				<table class="figures">
					<thead>
						<tr>
							<th scope="col">Since the start</th>
							<th scope="col">
								<Term word="wait">Wait</Term>
							</th>
							<th scope="col">
								<Term word="hold">Hold</Term>
							</th>
						</tr>
					</thead>
					<tbody>
						{TIMES.map((part, i) => (
							<tr>
								<th scope="row">{part}</th>
								<td data-figure={`waits.${part}`}>{duration(totals.waits[i])}</td>
								<td data-figure={`holds.${part}`}>{duration(totals.holds[i])}</td>
							</tr>
						))}
					</tbody>
				</table>
			</div>
		</details>
	)
}
