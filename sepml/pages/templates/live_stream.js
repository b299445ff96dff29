// Speech that is separated while it is spoken: the microphone in blocks to sepml, and each talker back, played and kept.
const SENT_EVERY = 0.25;
// The most that may wait to be played; of what comes late after a hiccup the oldest is left out, so that the delay does not grow.
const MOST_WAITING = 0.75;

async function answerOf(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Refusal(UNREACHABLE);
  }
  if (!answer.ok) throw new Refusal((await answer.json().catch(() => ({}))).error || `the server answers with status ${answer.status}`);
  return answer;
}

// A talker of a stream: heard at a side, shown by its level, and kept.
class Talker {
  constructor(context, number, of) {
    this.gain = context.createGain();
    this.side = context.createStereoPanner();
    this.apart = of > 1 ? -1 + (2 * number) / (of - 1) : 0;
    this.gain.connect(this.side).connect(context.destination);
    this.kept = [];
    this.element = document.createElement("p");
    this.meter = document.createElement("meter");
    this.meter.max = 1;
    this.meter.setAttribute("aria-label", `level of speaker ${number + 1}`);
    this.element.append(`speaker ${number + 1} `, this.meter);
  }

  hear(heard, alone) {
    this.gain.gain.value = heard ? 1 : 0;
    this.side.pan.value = alone ? 0 : this.apart;
  }
}

class LiveStream {
  constructor(context, media, found) {
    this.context = context;
    this.media = media;
    this.path = `live/${found.stream}`;
    this.talkers = [...Array(found.talkers).keys()].map((n) => new Talker(context, n, found.talkers));
    this.delay = found.delay;
    // Of the microphone: what is collected for the next request, and what waits to be sent.
    this.block = [];
    this.waiting = [];
    this.samples = 0;
    this.playAt = 0;
    this.certainty = 1;
  }

  get seconds() { return this.samples / this.context.sampleRate; }

  // How far what is heard now is behind what is spoken, s.
  get behind() {
    const waiting = this.waiting.flat().reduce((sum, part) => sum + part.length, 0) / this.context.sampleRate;
    return this.delay + waiting + Math.max(0, this.playAt - this.context.currentTime);
  }

  // Begins to listen; `failed` takes what goes wrong while it listens.
  listen(failed) {
    const source = this.context.createMediaStreamSource(this.media);
    const capture = this.capture = new AudioWorkletNode(this.context, "capture", { channelCount: 1, channelCountMode: "explicit" });
    let size = 0;
    capture.port.onmessage = ({ data }) => {
      this.block.push(data);
      size += data.length;
      if (size < SENT_EVERY * this.context.sampleRate) return;
      size = 0;
      this.flush();
      if (!this.sending) this.sending = this.send().catch(failed).finally(() => { this.sending = null; });
    };
    // It gives no sound; browsers run what leads to the loudspeakers.
    source.connect(capture).connect(this.context.destination);
  }

  flush() {
    if (this.block.length) this.waiting.push(this.block);
    this.block = [];
  }

  async send() {
    while (this.waiting.length) {
      // After a hiccup several blocks in one, 5 s at most.
      const parts = this.waiting.splice(0, 20).flat();
      const body = new Int16Array(parts.reduce((sum, part) => sum + part.length, 0));
      let at = 0;
      for (const part of parts) for (const value of part) body[at++] = Math.max(-32768, Math.min(32767, Math.round(32768 * value)));
      await this.take(await answerOf(this.path, { method: "POST", body }));
      this.samples += body.length;
    }
  }

  async take(answer) {
    this.certainty = Number(answer.headers.get("Sepml-Certainty"));
    const samples = new Int16Array(await answer.arrayBuffer());
    const count = this.talkers.length;
    const length = samples.length / count;
    if (!length) return;
    const rate = this.context.sampleRate;
    const begin = Math.max(this.playAt, this.context.currentTime + 0.05);
    const late = Math.min(length / rate, Math.max(0, begin + length / rate - this.context.currentTime - MOST_WAITING));
    this.playAt = begin + length / rate - late;
    this.talkers.forEach((talker, n) => {
      const own = new Int16Array(length);
      const buffer = this.context.createBuffer(1, length, this.context.sampleRate);
      const floats = buffer.getChannelData(0);
      let power = 0;
      for (let i = 0; i < length; i++) {
        own[i] = samples[i * count + n];
        floats[i] = own[i] / 32768;
        power += floats[i] * floats[i];
      }
      talker.kept.push(own);
      // -60 dB of full scale and below is nothing.
      talker.meter.value = Math.max(0, 1 + Math.log10(power / length + 1e-12) / 6);
      const source = new AudioBufferSourceNode(this.context, { buffer });
      source.connect(talker.gain);
      source.start(begin, late);
    });
  }

  // Hears nothing more.
  deafen() {
    this.media.getTracks().forEach((track) => track.stop());
    if (this.capture) {
      this.capture.port.onmessage = null;
      this.capture.disconnect();
    }
  }

  async finish() {
    this.deafen();
    if (this.sending) await this.sending;
    this.flush();
    await this.send();
    await this.take(await answerOf(this.path, { method: "DELETE" }));
    await this.context.close();
  }

  // Nobody waits for the rest.
  leave() {
    this.deafen();
    fetch(this.path, { method: "DELETE", keepalive: true }).catch(() => {});
    this.context.close().catch(() => {});
  }
}

// A WAV file of 16-bit samples of one channel.
function wavOf(parts, rate) {
  const size = 2 * parts.reduce((sum, part) => sum + part.length, 0);
  const head = new DataView(new ArrayBuffer(44));
  [..."RIFF"].forEach((letter, n) => head.setUint8(n, letter.charCodeAt(0)));
  head.setUint32(4, 36 + size, true);
  [..."WAVEfmt "].forEach((letter, n) => head.setUint8(8 + n, letter.charCodeAt(0)));
  head.setUint32(16, 16, true);
  head.setUint16(20, 1, true);
  head.setUint16(22, 1, true);
  head.setUint32(24, rate, true);
  head.setUint32(28, 2 * rate, true);
  head.setUint16(32, 2, true);
  head.setUint16(34, 16, true);
  [..."data"].forEach((letter, n) => head.setUint8(36 + n, letter.charCodeAt(0)));
  head.setUint32(40, size, true);
  return new Blob([head, ...parts], { type: "audio/wav" });
}
