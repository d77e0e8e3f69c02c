/**
 * Where the rows of a long list stand. Rows have heights of their own: estimated until they were seen,
 * measured from then on. Positions are sums, made anew from the first row that changed.
 */
export class Rows {
  #keys: string[] = [];
  #tops: number[] = [0];
  #dirtyFrom = 0;
  readonly #measured = new Map<string, number>();

  constructor(private readonly estimate: (index: number) => number) {}

  get length(): number {
    return this.#keys.length;
  }

  get total(): number {
    this.#settle();
    return this.#tops[this.#keys.length] ?? 0;
  }

  /** The list is this one now; what it shares with the former at its beginning keeps its place. */
  reset(keys: string[]): void {
    let same = 0;
    const shared = Math.min(keys.length, this.#keys.length);
    while (same < shared && keys[same] === this.#keys[same]) same++;
    this.#keys = keys;
    this.#dirtyFrom = Math.min(this.#dirtyFrom, same);
    if (this.#measured.size > 4 * keys.length + 1000) this.#forget();
  }

  /** A row was seen; the difference to what was thought of it. */
  measure(index: number, height: number): number {
    const key = this.#keys[index];
    if (key === undefined) return 0;
    const former = this.#height(index);
    this.#measured.set(key, height);
    if (former !== height) this.#dirtyFrom = Math.min(this.#dirtyFrom, index);
    return height - former;
  }

  /** The width has changed: heights are estimates again. */
  forgetHeights(): void {
    this.#measured.clear();
    this.#dirtyFrom = 0;
  }

  top(index: number): number {
    this.#settle();
    return this.#tops[Math.min(index, this.#keys.length)] ?? 0;
  }

  /** The row at this height. */
  at(y: number): number {
    this.#settle();
    let low = 0;
    let high = this.#keys.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#tops[middle]! <= y) low = middle;
      else high = middle - 1;
    }
    return Math.max(0, low);
  }

  #height(index: number): number {
    return this.#measured.get(this.#keys[index]!) ?? this.estimate(index);
  }

  #settle(): void {
    const { length } = this.#keys;
    if (this.#dirtyFrom > length) this.#dirtyFrom = length;
    for (let i = this.#dirtyFrom; i < length; i++) this.#tops[i + 1] = this.#tops[i]! + this.#height(i);
    this.#tops.length = length + 1;
    this.#dirtyFrom = length;
  }

  #forget(): void {
    const present = new Set(this.#keys);
    for (const key of this.#measured.keys()) if (!present.has(key)) this.#measured.delete(key);
  }
}
