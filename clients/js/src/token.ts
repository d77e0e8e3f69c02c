/** Where tokens come from, and when one wants to be replaced. */

/** Why a token is asked for. */
export interface TokenRequest {
  /** The server did not accept this one: a cached copy of it will not do. */
  readonly refused?: string;
}

/** A token, or what gets one: it is asked before each connection and before a token runs out. */
export type TokenProvider = string | ((request: TokenRequest) => string | Promise<string>);

/** For how many milliseconds a JWT is good from `serverTime`; nothing is verified. */
export function lifetime(token: string, serverTime: number): number | undefined {
  try {
    const payload = token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/');
    const { exp } = JSON.parse(atob(payload)) as { exp?: number };
    return typeof exp === 'number' ? Math.max(0, exp * 1000 - serverTime) : undefined;
  } catch {
    return undefined;
  }
}
