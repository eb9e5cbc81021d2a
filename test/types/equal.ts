/** `true` only if both are the very same type: `any` is not the same as anything else. */
export type Equal<A, B> =
	(<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false

/** Compiles only for `true`. */
export function holds<_Claim extends true>(): void {}
