// Figures as text.

const integers = new Intl.NumberFormat('en')
const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' })
const day = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'medium' })

export function count(value: number | null | undefined): string {
	return value == null ? '–' : integers.format(value)
}

export function duration(ms: number | null | undefined): string {
	if (ms == null) return '–'
	if (ms === 0) return '0 ms'
	if (ms < 10) return `${ms.toFixed(1)} ms`
	if (ms < 1000) return `${Math.round(ms)} ms`
	return ms < 60_000
		? `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`
		: `${(ms / 60_000).toFixed(1)} min`
}

/** How long ago, in whole units. */
export function age(ms: number): string {
	const seconds = Math.max(0, Math.round(ms / 1000))
	if (seconds < 60) return `${seconds} s`
	const minutes = Math.floor(seconds / 60)
	if (minutes < 60) return `${minutes} min ${seconds % 60} s`
	const hours = Math.floor(minutes / 60)
	return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`
}

export function rate(perSecond: number): string {
	if (perSecond === 0) return '0'
	return perSecond < 10 ? perSecond.toFixed(1) : count(Math.round(perSecond))
}

/** Such as `2 keys`. */
export function counted(value: number, noun: string): string {
	return `${count(value)} ${noun}${value === 1 ? '' : 's'}`
}

/** `null` stands for no bound. */
export function bound(value: number | null | undefined): string {
	return value === null ? 'no bound' : count(value)
}

export function moment(ms: number): string {
	return clock.format(ms)
}

export function date(ms: number): string {
	return day.format(ms)
}
