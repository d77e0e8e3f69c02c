/** Handlers by the name of what they hear. `Map` names each event's argument. */
export class Emitter<Events extends object> {
  readonly #handlers = new Map<keyof Events, Set<(value: never) => void>>();

  /** Calls `handler` whenever `name` happens; the answer ends that. */
  on<K extends keyof Events>(name: K, handler: (value: Events[K]) => void): () => void {
    let handlers = this.#handlers.get(name);
    if (!handlers) this.#handlers.set(name, (handlers = new Set()));
    const own = handler as (value: never) => void;
    handlers.add(own);
    return () => handlers.delete(own);
  }

  /** Whether anybody listens to `name`. */
  hears(name: keyof Events): boolean {
    return (this.#handlers.get(name)?.size ?? 0) > 0;
  }

  /**
   * Tells all who listen. A handler that throws stops nobody else: what it threw is reported as an
   * uncaught exception, where a program looks for such things.
   */
  emit<K extends keyof Events>(name: K, value: Events[K]): void {
    for (const handler of this.#handlers.get(name) ?? []) {
      try {
        (handler as (value: Events[K]) => void)(value);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
