// The line between the map and the server for the region under the pointer: the map asks, at most one question at a
// time; the answer is the region's crop and two lines of text. It runs beside the map, so that asking redraws nothing.

export default function (component) {
  const { data, setStateValue } = component;
  const shared = (globalThis[Symbol.for("ravl.map")] ??= { arrays: new Map(), listeners: new Set(), asked: null });
  shared.ask = (point, seq) => setStateValue("asked", { point, seq });
  shared.answer = data;
  shared.listeners.forEach((listen) => listen("answer"));
}
