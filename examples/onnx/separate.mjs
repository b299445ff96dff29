// Separates a recording by an exported model, with onnxruntime alone. The same code runs in a browser, but for the files.
//
//     npm install
//     node separate.mjs model.onnx mixture.wav OUT
//
// writes OUT/s1.wav, ...: 16 bits, at the levels of `sepml separate`. The recording has 16 bits, one channel and the rate of
// the model, which is 8000 Hz for those that come with sepml (a fourth word names another).
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-web";

// Estimates, a Float64Array for each talker, of a mixture, a Float32Array.
export async function separate(model, waveform) {
  const session = await ort.InferenceSession.create(model, { logSeverityLevel: 3 });
  const level = waveform.reduce((most, x) => Math.max(most, Math.abs(x)), 0) || 1;
  const mean = waveform.reduce((sum, x) => sum + x / level, 0) / waveform.length;
  const mixture = waveform.map((x) => x / level - mean);
  const { est_sources: found } = await session.run({ mixture: new ort.Tensor("float32", mixture, [1, mixture.length]) });
  const [, count, length] = found.dims;
  const ests = [...Array(count).keys()].map((n) => Float64Array.from(found.data.subarray(n * length, (n + 1) * length)));
  // Training determines neither level nor sign of an estimate: least squares fits their sum to the mixture.
  const gains = solve(ests.map((a) => ests.map((b) => dot(a, b))), ests.map((a) => dot(a, mixture)));
  const scaled = ests.map((est, n) => est.map((x) => x * gains[n] * level));
  // One factor for all, if a peak would be clipped.
  const peak = Math.max(1, ...scaled.map((est) => est.reduce((most, x) => Math.max(most, Math.abs(x)), 0)));
  return scaled.map((est) => est.map((x) => x / peak));
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

// The solution of matrix x = values, by elimination; 0 where an estimate is silent.
function solve(matrix, values) {
  const rows = matrix.map((row, n) => [...row, values[n]]);
  for (let n = 0; n < rows.length; n++) {
    const best = rows.slice(n).reduce((most, row, k) => (Math.abs(row[n]) > Math.abs(rows[most][n]) ? n + k : most), n);
    [rows[n], rows[best]] = [rows[best], rows[n]];
    if (Math.abs(rows[n][n]) < 1e-12) continue;
    for (let k = 0; k < rows.length; k++) {
      if (k === n) continue;
      const factor = rows[k][n] / rows[n][n];
      rows[k] = rows[k].map((x, i) => x - factor * rows[n][i]);
    }
  }
  return rows.map((row, n) => (Math.abs(row[n]) < 1e-12 ? 0 : row[rows.length] / row[n]));
}

// The samples of a WAV file of 16 bits and one channel, and its rate.
function readWav(path) {
  const bytes = readFileSync(path);
  const name = (at) => bytes.toString("latin1", at, at + 4);
  let rate = 0;
  for (let at = 12; at + 8 <= bytes.length; at += 8 + bytes.readUInt32LE(at + 4) + (bytes.readUInt32LE(at + 4) % 2)) {
    if (name(at) === "fmt ") {
      const [channels, bits] = [bytes.readUInt16LE(at + 10), bytes.readUInt16LE(at + 22)];
      if (channels !== 1 || bits !== 16) throw new Error(`${path}: ${channels} channels of ${bits} bits, expected one of 16`);
      rate = bytes.readUInt32LE(at + 12);
    }
    if (name(at) === "data" && rate) {
      const samples = new Int16Array(bytes.buffer.slice(bytes.byteOffset + at + 8, bytes.byteOffset + at + 8 + bytes.readUInt32LE(at + 4)));
      return { rate, waveform: Float32Array.from(samples, (x) => x / 32768) };
    }
  }
  throw new Error(`${path}: no WAV file`);
}

function writeWav(path, signal, rate) {
  const bytes = Buffer.alloc(44 + 2 * signal.length);
  bytes.write("RIFF", 0, "latin1");
  bytes.writeUInt32LE(36 + 2 * signal.length, 4);
  bytes.write("WAVEfmt ", 8, "latin1");
  bytes.writeUInt32LE(16, 16);
  bytes.writeUInt16LE(1, 20);
  bytes.writeUInt16LE(1, 22);
  bytes.writeUInt32LE(rate, 24);
  bytes.writeUInt32LE(2 * rate, 28);
  bytes.writeUInt16LE(2, 32);
  bytes.writeUInt16LE(16, 34);
  bytes.write("data", 36, "latin1");
  bytes.writeUInt32LE(2 * signal.length, 40);
  signal.forEach((x, n) => bytes.writeInt16LE(Math.max(-32768, Math.min(32767, Math.round(32768 * x))), 44 + 2 * n));
  writeFileSync(path, bytes);
}

const [model, recording, out, expected = "8000"] = process.argv.slice(2);
if (!out) {
  console.error("node separate.mjs MODEL.onnx MIXTURE.wav OUT [RATE OF THE MODEL]");
  process.exit(2);
}
const { rate, waveform } = readWav(recording);
if (rate !== Number(expected)) {
  console.error(`${recording}: ${rate} Hz, expected ${expected} Hz`);
  process.exit(1);
}
mkdirSync(out, { recursive: true });
const ests = await separate(readFileSync(model), waveform);
ests.forEach((est, n) => writeWav(join(out, `s${n + 1}.wav`), est, rate));
