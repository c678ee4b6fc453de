/** The key that lets this page start sessions. */

const STORED = "callbox.key";

/** The key in a URL fragment (`#key=cbk_pub_…`), if there is one. */
export function keyInFragment(fragment: string): string | null {
  const key = new URLSearchParams(fragment.replace(/^#/, "")).get("key")?.trim();
  return key ? key : null;
}

/**
 * Takes the key out of the address bar, so that it stays out of the history and of screenshots,
 * and keeps it for as long as the tab lives.
 */
export function takeKey(): string | null {
  const fresh = keyInFragment(location.hash);
  if (fresh) {
    storeKey(fresh);
    history.replaceState(history.state, "", location.pathname + location.search);
  }
  return fresh ?? sessionStorage.getItem(STORED);
}

export function storeKey(key: string): void {
  sessionStorage.setItem(STORED, key);
}

export function forgetKey(): void {
  sessionStorage.removeItem(STORED);
}

/** Whether this looks like one of callbox's keys; catches a paste that went wrong. */
export function looksLikeKey(key: string): boolean {
  return /^cbk_(pub|prv)_[A-Za-z0-9]+_\S+$/.test(key);
}
