/** Pauses between attempts: exponential with full jitter, so that many clients spread by themselves. */
export class Backoff {
  #attempt = 0;

  constructor(
    readonly baseMs: number,
    readonly capMs: number,
    readonly random: () => number = Math.random,
  ) {}

  /** The n-th pause is drawn evenly from zero to `base * 2^n`, at most `cap`. */
  next(): number {
    const ceiling = Math.min(this.capMs, this.baseMs * 2 ** Math.min(this.#attempt++, 20));
    return ceiling * this.random();
  }

  /** Something went well: the next pause is a short one again. */
  reset(): void {
    this.#attempt = 0;
  }
}
