/** The server's REST surface. Refusals are problems (RFC 9457) with a stable code. */
export class ApiError extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly status: number,
    readonly retryAfterMs?: number,
  ) {
    super(message);
  }
}

export interface CallOptions {
  method?: string;
  body?: unknown;
  token?: string | undefined;
}

/** Asks the server. A network that is away is the code `offline`. */
export async function call<T>(path: string, { method, body, token }: CallOptions = {}): Promise<T> {
  const headers: Record<string, string> = {};
  if (body !== undefined) headers['content-type'] = 'application/json';
  if (token) headers['authorization'] = `Bearer ${token}`;
  let answer: Response;
  try {
    answer = await fetch(path, {
      method: method ?? (body === undefined ? 'GET' : 'POST'),
      headers,
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
  } catch {
    throw new ApiError('offline', 'The server can not be reached. Check your connection and try again.', 0);
  }
  const said = (await answer.json().catch(() => ({}))) as {
    code?: string;
    message?: string;
    retry_after_ms?: number;
  };
  if (answer.ok) return said as T;
  const message = said.message ?? `The server answered ${answer.status}.`;
  throw new ApiError(said.code ?? 'internal', sentence(message), answer.status, said.retry_after_ms);
}

function sentence(text: string): string {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}
