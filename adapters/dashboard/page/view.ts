// What the user has chosen to see. The address remembers it.

const COLUMNS = ['name', 'trouble', 'active', 'queued', 'wait', 'rejected', 'done'] as const
export type Column = (typeof COLUMNS)[number]

const WINDOWS = [1, 5, 15]

export const view: {
	/** The time that the charts show, in ms. */
	span: number
	/** The end of that time, in ms since 1970; `undefined`: now. */
	end: number | undefined
	/** The moment whose values are shown beside the charts, in ms; `undefined`: the latest. */
	pointed: number | undefined
	sort: Column
	/** Whether the order of the column is turned round. */
	reverse: boolean
	find: string
	/** The trouble that is shown alone. */
	only: string
	/** The names of the open limiters; `undefined`: nothing was shown yet. */
	open: Set<string> | undefined
	/** Whether the user has chosen them. */
	chosen: boolean
} = {
	span: 60_000,
	end: undefined,
	pointed: undefined,
	sort: 'trouble',
	reverse: false,
	find: '',
	only: '',
	open: undefined,
	chosen: false,
}

/** The lengths that the buttons offer, in minutes. */
export { WINDOWS }

export function readAddress(): void {
	const address = new URLSearchParams(location.hash.slice(1))
	const minutes = Number(address.get('window'))
	if (WINDOWS.includes(minutes)) view.span = minutes * 60_000
	const sort = (address.get('sort') ?? '').split(' ')
	if (COLUMNS.includes(sort[0] as Column)) view.sort = sort[0] as Column
	view.reverse = sort[1] === 'reverse'
	view.find = address.get('find') ?? ''
	view.only = address.get('only') ?? ''
	if (address.has('open')) {
		view.chosen = true
		view.open = new Set(address.getAll('open').filter((name) => name !== ''))
	}
}

export function writeAddress(): void {
	const address = new URLSearchParams()
	const minutes = view.span / 60_000
	if (minutes !== 1 && WINDOWS.includes(minutes)) address.set('window', String(minutes))
	if (view.sort !== 'trouble' || view.reverse) {
		address.set('sort', view.reverse ? `${view.sort} reverse` : view.sort)
	}
	if (view.find !== '') address.set('find', view.find)
	if (view.only !== '') address.set('only', view.only)
	if (view.chosen) {
		for (const name of view.open ?? []) address.append('open', name)
		// That none is open is a choice, too.
		if (view.open?.size === 0) address.append('open', '')
	}
	history.replaceState(null, '', `#${address}`)
}
