/**
 * Stands in for `@daily-co/daily-js` in the bundle.
 *
 * `@pipecat-ai/websocket-transport` imports it for its default media manager, which loads Daily's
 * call machine from the network when a call starts. This page brings its own media
 * (`audio/media.ts`) and loads nothing from anywhere but the dispatcher.
 */
export default {
  getCallInstance: (): never => refuse(),
  createCallObject: (): never => refuse(),
};

function refuse(): never {
  throw new Error("this page does not use Daily's media manager");
}
