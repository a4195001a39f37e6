// Requests to the program that serves this page. Each carries the token of this start.
const token = document.querySelector("meta[name=token]").content;

export class Refused extends Error {
  constructor(status, line) {
    super(line);
    this.status = status;
  }
}

async function answered(response) {
  if (response.ok) return response;
  let line = `the program answered with ${response.status}`;
  try {
    line = (await response.json()).error || line;
  } catch {
    // Not JSON: the line above will do.
  }
  throw new Refused(response.status, line);
}

export const address = (path) => `${path}?token=${encodeURIComponent(token)}`;

export async function get(path) {
  const response = await fetch(path, { headers: { "X-Token": token } });
  return (await answered(response)).json();
}

export async function post(path, values = {}) {
  const headers = { "X-Token": token, "Content-Type": "application/json" };
  const body = JSON.stringify(values);
  return answered(await fetch(path, { method: "POST", headers, body }));
}

// A file as the body of a request; `progress` is told the share that is sent, and an
// AbortSignal ends it.
export function upload(path, file, progress = () => {}, signal = null) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.setRequestHeader("X-Token", token);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) progress(event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      if (request.status < 300) return resolve(request.response);
      const line = request.response?.error || `answered with ${request.status}`;
      return reject(new Refused(request.status, line));
    });
    request.addEventListener("error", () => {
      reject(new Refused(0, "could not be sent; see that the program still runs"));
    });
    request.addEventListener("abort", () => reject(new DOMException("", "AbortError")));
    signal?.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

// What was dropped, with folders opened: [{file, path, inside}].
async function entered(entry, path, inside, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    found.push({ file, path, inside });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const entries = await new Promise((resolve, reject) =>
      reader.readEntries(resolve, reject),
    );
    if (!entries.length) return;
    for (const below of entries) {
      await entered(below, `${path}/${below.name}`, true, found);
    }
  }
}

export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.());
  const files = [...transfer.files];
  if (!entries.some(Boolean)) {
    return files.map((file) => ({ file, path: file.name, inside: false }));
  }
  const found = [];
  for (const entry of entries.filter(Boolean)) {
    await entered(entry, entry.name, false, found);
  }
  return found;
}
