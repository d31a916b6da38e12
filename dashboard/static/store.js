// Keeps arrays that the server sends once: Streamlit sends a message that it has sent before as its digest only, so that
// positions stay in the browser while colours change. Other components of the page read them by name.
//
// A message: 4 bytes with the length of a JSON header {name, version}, the header, the bytes of the arrays.

export default function (component) {
  const { data } = component;
  if (!(data instanceof Uint8Array) || data.length < 4) return;
  const length = new DataView(data.buffer, data.byteOffset, 4).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(data.subarray(4, 4 + length)));
  const shared = (globalThis[Symbol.for("ravl.map")] ??= { arrays: new Map(), listeners: new Set(), asked: null });
  if (shared.arrays.get(header.name)?.version === header.version) return;
  // a copy, because views of 16 bits must begin at an even address
  shared.arrays.set(header.name, { version: header.version, bytes: data.slice(4 + length) });
  shared.listeners.forEach((listen) => listen(header.name));
}
