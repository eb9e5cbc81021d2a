// Shows the load that the server has, and sends it the values of the sliders.
const sliders = Array.from(document.querySelectorAll('input'))

/** @param {Record<string, number>} load */
function show(load) {
	for (const slider of sliders) {
		slider.value = String(load[slider.id])
		const output = document.querySelector(`output[for="${slider.id}"]`)
		if (output !== null) output.textContent = slider.value
	}
}

for (const slider of sliders) {
	slider.addEventListener('input', async () => {
		const body = JSON.stringify({ [slider.id]: slider.valueAsNumber })
		const answer = await fetch('load', {
			method: 'POST',
			headers: { 'Content-Type': 'application/json' },
			body,
		})
		show(await answer.json())
	})
}

show(await (await fetch('load')).json())
