/** Requests to the server that the page came from, and what went wrong with them, in words. */

import { pause } from "./dom.js";
import { askForToken, keep, token } from "./token.js";

const TRIES = 4; // of a reading request that the server was too busy for
const LONGEST_WAIT = 10; // seconds

/** A request that did not do what it was meant to; the message is for people. */
export class Trouble extends Error {
  /** @param {string} words @param {number} status HTTP status, 0 if the server was not reached */
  constructor(words, status) {
    super(words);
    this.status = status;
  }
}

const WORDS = {
  401: "This needs the token.",
  403: "The server refused this page. Open it at the address that mixtura serve printed.",
  404: "That is no longer there. Somebody may have changed the catalog meanwhile.",
  408: "The photo took too long to arrive. Try again.",
  409: "Somebody has changed the catalog meanwhile. Look again, then repeat it.",
  413: "That is too large: 10 MiB is the limit for what is sent at once.",
  415: "This kind of file is not read. JPEG, PNG, WebP, GIF and BMP are.",
  429: "Too many requests at once.",
  503: "The server is busy.",
};

/**
 * Ask the server.
 * @param {string} path
 * @param {{method?: string, json?: any, body?: Blob, type?: string}} [options]
 * @returns {Promise<any>} the JSON of the answer; null if it has none
 * @throws {Trouble}
 */
export async function ask(path, options = {}) {
  const response = await sent(path, options);
  return response.status === 204 ? null : response.json();
}

/** The bytes of a picture. */
export async function bytes(path) {
  return (await sent(path, {})).blob();
}

/** Send, with the token; ask for one if it is refused, and wait if a reading request comes at a busy moment. */
async function sent(path, options) {
  for (let turn = 1; ; turn++) {
    const response = await once(path, options);
    if (response.ok) return response;
    if (response.status === 401 && (await anotherToken(response))) continue;
    if (isBusy(response) && (options.method ?? "GET") === "GET" && turn < TRIES) {
      await pause(1000 * Math.min(retryAfter(response) || turn, LONGEST_WAIT));
      continue;
    }
    throw await trouble(response);
  }
}

/** An address of the service as the page sees it, also where a proxy has put all of it under a prefix. */
export const here = (path) => new URL(path.replace(/^[/]/, ""), document.baseURI).href;

async function once(path, { method = "GET", json, body, type }) {
  const headers = { Accept: "application/json, image/*" };
  if (token()) headers.Authorization = `Bearer ${token()}`;
  if (json !== undefined) headers["Content-Type"] = "application/json";
  if (body) headers["Content-Type"] = type;
  try {
    return await fetch(here(path), { method, headers, body: json === undefined ? body : JSON.stringify(json) });
  } catch {
    throw new Trouble("The server cannot be reached. Is mixtura serve still running, and is the network up?", 0);
  }
}

async function anotherToken(response) {
  const refused = token();
  if (refused) keep(null);
  const why = refused ? "The server does not take this token." : (await detail(response)) || "Changes need the token.";
  return (await askForToken(why)) !== null;
}

const isBusy = (response) => response.status === 429 || response.status === 503;

/** Seconds, as the server asks for. */
function retryAfter(response) {
  const seconds = Number(response.headers.get("Retry-After"));
  return Number.isFinite(seconds) ? Math.ceil(seconds) : 0;
}

async function problem(response) {
  try {
    return await response.clone().json();
  } catch {
    return {};
  }
}

const detail = async (response) => (await problem(response)).detail;

async function trouble(response) {
  const { detail, request_id } = await problem(response);
  let words = detail || WORDS[response.status] || `The server answered ${response.status}.`;
  if (isBusy(response)) words += ` Try again in ${retryAfter(response) || 1} s.`;
  if (response.status >= 500 && request_id && !words.includes(request_id)) words += ` (request ${request_id})`;
  return new Trouble(words, response.status);
}
