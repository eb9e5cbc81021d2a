import { Component, Fragment } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import { age, bound, count, counted, duration, rate } from './format.js'
import type { Word } from './glossary.js'
import { Panel } from './panel.js'
import type { Range } from './range.js'
import { refresh } from './refresh.js'
import { Spark } from './spark.js'
import { type Limiter, store } from './store.js'
import { type Diagnosis, TROUBLES, type Trouble } from './trouble.js'
import { type Column, view, writeAddress } from './view.js'

/** Rows that are drawn first: more than are in view. The others follow when these are seen. */
const FIRST = 20

export interface Entry {
	limiter: Limiter
	diagnosis: Diagnosis
}

export const TROUBLE_TEXTS: Record<Trouble, string> = {
	rejecting: 'Rejecting',
	filling: 'Near its bound',
	saturated: 'Full',
	abandoned: 'Abandoned work',
	'would-reject': 'Would reject',
	fine: 'Fine',
}

const byName = new Intl.Collator()

/** Which of two is first, by a column; of those that are the same, by name. */
const ORDERS: Record<Column, (a: Entry, b: Entry, now: number) => number> = {
	name: () => 0,
	trouble: byTrouble,
	active: (a, b, now) => load(b, now) - load(a, now),
	queued: (a, b, now) =>
		(b.limiter.samples[now]?.queued ?? 0) - (a.limiter.samples[now]?.queued ?? 0),
	wait: ({ diagnosis: a }, { diagnosis: b }) => (b.waitP99 ?? -1) - (a.waitP99 ?? -1),
	rejected: ({ diagnosis: a }, { diagnosis: b }) => rejections(b) - rejections(a),
	done: ({ diagnosis: a }, { diagnosis: b }) => b.done - a.done,
}

/** The worst first. */
export function byTrouble({ diagnosis: a }: Entry, { diagnosis: b }: Entry): number {
	const order = TROUBLES.indexOf(a.trouble) - TROUBLES.indexOf(b.trouble)
	return order || (a.trouble === 'fine' ? 0 : b.weight - a.weight)
}

function load({ limiter }: Entry, now: number): number {
	const { active = 0, capacity = null } = limiter.samples[now] ?? {}
	return limiter.settings?.keyed ? active / 1e6 : active / (capacity ?? Number.POSITIVE_INFINITY)
}

function rejections({ rejections: all }: Diagnosis): number {
	return all.reduce((total, [, perSecond]) => total + perSecond, 0)
}

/**
 * The order as it was last, while the pointer is on the table: what one is about to press must not
 * move.
 */
let order: string[] = []

export function sorted(entries: Entry[], now: number): Entry[] {
	const still = document.querySelector('#limiters tr.limiter:hover') !== null
	const rank = new Map(order.map((name, i) => [name, i]))
	const sign = view.reverse ? -1 : 1
	const result = entries.toSorted((a, b) =>
		still && rank.size === entries.length
			? (rank.get(a.limiter.name) ?? 0) - (rank.get(b.limiter.name) ?? 0)
			: sign * (ORDERS[view.sort](a, b, now) || byName.compare(a.limiter.name, b.limiter.name)),
	)
	order = result.map(({ limiter }) => limiter.name)
	return result
}

export function forgetOrder(): void {
	order = []
}

const HEADS: [Column | undefined, Word, string, string][] = [
	['name', 'limiter', 'Limiter', ''],
	['trouble', 'state', 'State', ''],
	[undefined, 'load', 'Load', 'load'],
	['active', 'active', 'At work', ''],
	['queued', 'queued', 'Waiting', ''],
	['wait', 'wait', 'Wait p99', 'wide'],
	['rejected', 'rejected', 'Rejected/s', ''],
	['done', 'done', 'Done/s', 'wide'],
]

function sortBy(column: Column): void {
	view.reverse = view.sort === column && !view.reverse
	view.sort = column
	forgetOrder()
	writeAddress()
	refresh()
}

function toggle(name: string): void {
	view.open ??= new Set()
	view.chosen = true
	if (!view.open.delete(name)) view.open.add(name)
	writeAddress()
	refresh()
}

/** Opens a limiter, and goes there. The search and the filter must not hide it. */
export function show(limiter: Limiter): void {
	view.open = new Set(view.open).add(limiter.name)
	view.chosen = true
	view.find = ''
	view.only = ''
	writeAddress()
	refresh()
	requestAnimationFrame(() => {
		document.getElementById(idOf(limiter))?.focus()
	})
}

/** The id of the button of a row. */
function idOf(limiter: Limiter): string {
	return `limiter-${store.limiters.indexOf(limiter)}`
}

/** Moves between rows by the arrow keys. */
function moveFocus(event: KeyboardEvent): void {
	const { target, key } = event
	if (!(target instanceof HTMLElement) || !target.matches('.open')) return
	const buttons = Array.from(document.querySelectorAll<HTMLElement>('#limiters .open'))
	const at = buttons.indexOf(target)
	const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[key]
	if (to === undefined) return
	event.preventDefault()
	buttons[to]?.focus()
}

export function Table({ entries, range, tick }: { entries: Entry[]; range: Range; tick: number }) {
	const [drawn, setDrawn] = useState(FIRST)
	useEffect(() => setDrawn(Number.POSITIVE_INFINITY), [])
	return (
		<table id="limiters" aria-label="Limiters">
			<thead>
				<tr>
					{HEADS.map(([column, word, title, kind]) => (
						<th
							scope="col"
							class={`column-${column ?? 'load'} ${kind}`}
							aria-sort={
								column === view.sort ? (view.reverse ? 'descending' : 'ascending') : undefined
							}
						>
							<button
								type="button"
								class="term"
								data-tip={word}
								aria-describedby={`tip-${word}`}
								onClick={() => column !== undefined && sortBy(column)}
							>
								{title}
								<span class="arrow" aria-hidden="true">
									{column === view.sort ? (view.reverse ? ' ▲' : ' ▼') : ''}
								</span>
							</button>
						</th>
					))}
				</tr>
			</thead>
			<tbody onKeyDown={moveFocus}>
				{entries.slice(0, drawn).map(({ limiter, diagnosis }) => {
					const open = view.open?.has(limiter.name) === true
					const id = idOf(limiter)
					return (
						<Fragment key={limiter.name}>
							<Row
								limiter={limiter}
								diagnosis={diagnosis}
								range={range}
								open={open}
								id={id}
								tick={tick}
							/>
							{open && (
								<tr class="detail">
									<td colSpan={HEADS.length} id={`${id}-panel`}>
										<Panel limiter={limiter} diagnosis={diagnosis} range={range} id={id} />
									</td>
								</tr>
							)}
						</Fragment>
					)
				})}
			</tbody>
		</table>
	)
}

interface RowProps extends Entry {
	range: Range
	open: boolean
	id: string
	/** Changes with each sample, and not when only the pointer moves. */
	tick: number
}

class Row extends Component<RowProps> {
	override shouldComponentUpdate(next: RowProps): boolean {
		const { tick, open, id, range } = this.props
		const same = next.tick === tick && next.open === open && next.id === id
		return !same || next.range.from !== range.from || next.range.to !== range.to
	}

	render({ limiter, diagnosis, range, open, id }: RowProps) {
		const { name, settings } = limiter
		const { trouble, since, waitP99, rejections: all, done } = diagnosis
		const now = limiter.samples[range.to]
		const keyed = settings?.keyed === true
		const total = rejections(diagnosis)
		return (
			<tr
				class="limiter"
				data-limiter={name}
				data-trouble={trouble}
				onClick={({ target }) => {
					if (target instanceof Element && target.closest('button') === null) toggle(name)
				}}
			>
				<th scope="row">
					<button
						type="button"
						class="open"
						id={id}
						aria-expanded={open}
						aria-controls={open ? `${id}-panel` : undefined}
						onClick={() => toggle(name)}
					>
						<bdi>{name}</bdi>
					</button>
					<span class="modes">{modesOf(limiter).join(' · ')}</span>
				</th>
				<td class="state">
					<span class="pill">{TROUBLE_TEXTS[trouble]}</span>
					{since !== undefined && (
						<span class="since"> {age((store.times[range.to] ?? 0) - since)}</span>
					)}
				</td>
				<td class="load">
					<Spark limiter={limiter} from={range.from} to={range.to} />
				</td>
				<td data-figure="active" data-title="At work">
					{count(now?.active)}{' '}
					<small>
						{keyed
							? `in ${counted(now?.keys ?? 0, 'key')}`
							: now !== undefined && now.capacity === null
								? 'no bound'
								: `of ${bound(now?.capacity)}`}
					</small>
				</td>
				<td data-figure="queued" data-title="Waiting">
					{count(now?.queued)}{' '}
					<small>{!keyed && now?.maxQueue != null && `of ${count(now.maxQueue)}`}</small>
				</td>
				<td data-figure="wait" class="wide">
					{duration(waitP99)}{' '}
					<small>
						{waitP99 !== null && settings?.maxWait != null && `of ${duration(settings.maxWait)}`}
					</small>
				</td>
				<td
					data-figure="rejected"
					data-title="Rejected/s"
					class={trouble === 'rejecting' ? 'bad' : ''}
				>
					{rate(total)}{' '}
					<small>
						{all[0]?.[0]}
						{all.length > 1 && ` +${all.length - 1}`}
					</small>
				</td>
				<td data-figure="done" class="wide">
					{rate(done)}
				</td>
			</tr>
		)
	}
}

/** How it is set, in a few words. */
function modesOf({ settings }: Limiter): string[] {
	const modes: string[] = settings?.dryRun ? ['dry run'] : []
	if (settings === null) return modes
	modes.push(
		{ given: 'fixed', shared: 'fleet', found: 'adaptive', 'by key': 'by key' }[settings.capacity],
	)
	if (settings?.keyed) modes.push('keyed')
	if (settings?.priority) modes.push('priorities')
	if (settings?.fair) modes.push('fair shares')
	if (settings?.order === 'lifo') modes.push('newest first')
	if (settings?.order === 'adaptive') modes.push('order adapts')
	return modes
}
