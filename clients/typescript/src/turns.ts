/** Lets a bounded number of calls run at a time. The others wait in the order in which they came. */

import type { Deadline } from "./deadline.js";

export class Turns {
  #free: number;
  /** Admits each call that waits, in the order in which they came. */
  readonly #waiting = new Set<() => void>();

  constructor(atOnceMax: number) {
    this.#free = atOnceMax;
  }

  /** Waits for a turn. The call that got one gives it back. */
  async take(deadline: Deadline): Promise<void> {
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    let admit = (): void => undefined;
    const admitted = new Promise<void>((resolve) => {
      admit = resolve;
    });
    this.#waiting.add(admit);
    try {
      await deadline.within(admitted);
    } catch (error) {
      // The turn may have come at the moment in which the wait ended.
      if (!this.#waiting.delete(admit)) {
        this.give();
      }
      throw error;
    }
  }

  give(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#free += 1;
    } else {
      this.#waiting.delete(next);
      next();
    }
  }
}
