// The token of this tab, requests with it, and the stream that keeps a page up to date.
// The token lives in sessionStorage: it ends with the tab, no other port or site can read it, and no cookie is needed.

const KEY = "canarium-token";
const HEADERS = { "X-Canarium-Dashboard": "1" };

export class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function takeTokenFromAddress() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!found) return;
  setToken(found);
  history.replaceState(null, "", location.pathname + location.search);
}

export const setToken = (token) => sessionStorage.setItem(KEY, token);
export const hasToken = () => sessionStorage.getItem(KEY) !== null;
export const forgetToken = () => sessionStorage.removeItem(KEY);

function headers() {
  const token = sessionStorage.getItem(KEY);
  return token === null ? HEADERS : { ...HEADERS, Authorization: `Bearer ${token}` };
}

export async function ask(path, body) {
  const options = { headers: headers(), cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    options.headers = { ...options.headers, "Content-Type": "application/json" };
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Problem(0, "the dashboard does not answer: does it still run?");
  }
  const found = await answer.json().catch(() => ({ message: `${answer.status} ${answer.statusText}` }));
  if (!answer.ok) throw new Problem(answer.status, found.message ?? answer.statusText);
  return found;
}

// Follows a page's stream until `close`. EventSource cannot send headers, so server-sent events are read from fetch.
export function follow(path, { view, tick, problem, state }) {
  const abort = new AbortController();
  let wait = 1000;
  async function once() {
    const answer = await fetch(path, { headers: headers(), cache: "no-store", signal: abort.signal });
    if (!answer.ok) {
      const found = await answer.json().catch(() => ({ message: answer.statusText }));
      throw new Problem(answer.status, found.message);
    }
    for await (const { kind, data } of events(answer.body)) {
      wait = 1000;
      if (kind === "problem") problem(new Problem(data.status, data.message));
      else {
        state("live");
        (kind === "view" ? view : tick)(data);
      }
    }
  }
  (async () => {
    while (!abort.signal.aborted) {
      try {
        await once();
      } catch (error) {
        if (abort.signal.aborted) return;
        if (error instanceof Problem) problem(error);
        if (error.status === 401) return;
      }
      if (abort.signal.aborted) return;
      state("lost");
      await new Promise((resolve) => setTimeout(resolve, wait));
      wait = Math.min(wait * 2, 15000);
    }
  })();
  return { close: () => abort.abort() };
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(part.split("\n").map((line) => line.split(/: (.*)/s, 2)));
      if (fields.data) yield { kind: fields.event, data: JSON.parse(fields.data) };
    }
  }
}
