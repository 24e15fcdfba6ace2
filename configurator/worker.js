// Runs Python, away from the page: render.py and the template, unpacked into a file system in memory.
const here = new URL(".", import.meta.url).href;
const settings = JSON.parse(new URL(import.meta.url).searchParams.get("settings"));
const STORE = "copier-prefect-configurator-";

// The large files come packed, tell how far they are, and are kept for the next visit.
const plain = self.fetch.bind(self);
let received = 0;
const total = Object.values(settings.packed).reduce((a, b) => a + b, 0);

async function stored() {
  if (!self.caches) return null; // not on plain http
  const name = STORE + here;
  for (const other of await caches.keys()) {
    if (other.startsWith(STORE) && other !== name) await caches.delete(other);
  }
  return caches.open(name);
}
const store = stored().catch(() => null);

async function packed(name) {
  const address = `${here}${name}.gz`;
  const kept = await store;
  let answer = await kept?.match(address);
  if (!answer) {
    answer = await plain(address);
    if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
    await kept?.put(address, answer.clone()).catch(() => {}); // no room is no fault
  }
  const told = new TransformStream({
    transform(chunk, out) {
      received += chunk.length;
      postMessage({ progress: Math.min(1, received / total) });
      out.enqueue(chunk);
    },
  });
  return answer.body.pipeThrough(told).pipeThrough(new DecompressionStream("gzip"));
}

self.fetch = async (address, options) => {
  const url = new URL(address.url ?? address, here).href;
  const name = url.startsWith(here) ? url.slice(here.length) : "";
  if (!(name in settings.packed)) return plain(address, options);
  const type = name.endsWith(".wasm") ? "application/wasm" : "application/zip";
  return new Response(await packed(name), { headers: { "Content-Type": type } });
};

async function start() {
  const { loadPyodide } = await import(`${here}pyodide.mjs`);
  const archive = fetch(`${here}bundle.zip`).then((answer) => answer.arrayBuffer());
  const python = await loadPyodide({ indexURL: here });
  postMessage({ progress: 1 });
  python.FS.writeFile("/bundle.zip", new Uint8Array(await archive));
  python.globals.set("settings", python.toPy(settings));
  return python.runPython(`
import json, sys, zipfile
from pathlib import Path

with zipfile.ZipFile("/bundle.zip") as bundle:
    for info in bundle.infolist():
        path = Path(bundle.extract(info, "/bundle"))
        path.chmod(info.external_attr >> 16)
sys.path.insert(0, "/bundle/lib")
from render import Session

session = Session(Path("/bundle/template"), settings["source"], settings["commit"])

def answer(request):
    request = json.loads(request)
    if request["want"] == "zip":
        return session.archive()
    return json.dumps(session.show(request["given"]))

answer
`);
}

const ready = start();
ready.catch((error) => postMessage({ fault: String(error) }));

onmessage = async ({ data }) => {
  try {
    const answer = await ready;
    const found = answer(JSON.stringify(data));
    if (typeof found === "string") {
      postMessage({ id: data.id, ...JSON.parse(found) });
    } else {
      const bytes = found.toJs();
      found.destroy();
      postMessage({ id: data.id, bytes }, [bytes.buffer]);
    }
  } catch (error) {
    postMessage({ id: data.id, fault: String(error) });
  }
};
