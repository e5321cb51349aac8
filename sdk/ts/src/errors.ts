/**
 * An error of the client. The codes are: `closed` (close was called, or the client has given up;
 * the cause says why), `disconnected` (the connection was lost before the answer: the server may
 * have handled the request or not), `queue_full`, `too_large` (the message is larger than the
 * server accepts), `not_encrypted` (the server does not encrypt), `timeout`, `invalid` (an
 * argument), `left` (the room was left), `stop` (thrown by `credentials`: give up), and those of
 * ServerError.
 */
export class HearthError extends Error {
  /** For programs. */
  readonly code: string;

  constructor(code: string, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.code = code;
  }
}

/** An error that the server has sent in answer to a request or a join. The code may be empty. */
export class ServerError extends HearthError {}

/** Returns the error for the data of an error event. */
export function serverError(data: unknown): ServerError {
  const { message, code } = (data ?? {}) as Record<string, unknown>;
  return new ServerError(typeof code === "string" ? code : "", typeof message === "string" ? message : "error");
}
