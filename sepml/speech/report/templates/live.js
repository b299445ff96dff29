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

// The button that begins and ends, and what it shows. `talkers()` says how many talk, `seconds` how long at most.
function watchLive(button, panel, seconds, talkers, say) {
  const [levels, heard] = [panel.querySelector(".levels"), panel.querySelector("select")];
  let stream = null;

  function choose() {
    if (!stream) return;
    stream.talkers.forEach((talker, n) => talker.hear(heard.value === "all" || heard.value === String(n + 1), heard.value !== "all"));
  }

  function show(listening) {
    button.textContent = listening ? "Stop" : "Listen live";
    button.setAttribute("aria-pressed", String(listening));
  }

  async function begin() {
    let media;
    try {
      media = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
    } catch (error) {
      throw new Refusal(navigator.mediaDevices ? `No microphone: ${error.message}` : "Browsers record on https pages and on this machine's own address only.");
    }
    const context = new AudioContext();
    try {
      await context.audioWorklet.addModule("capture.js");
      const answer = await answerOf(`live?rate=${context.sampleRate}&speakers=${talkers()}`, { method: "POST" });
      stream = new LiveStream(context, media, await answer.json());
    } catch (error) {
      media.getTracks().forEach((track) => track.stop());
      context.close();
      throw error;
    }
    levels.replaceChildren(...stream.talkers.map((talker) => talker.element));
    heard.replaceChildren(new Option("everybody, side by side", "all"), ...stream.talkers.map((_, n) => new Option(`speaker ${n + 1}`, n + 1)), new Option("nobody", "none"));
    choose();
    const own = stream;
    own.listen((error) => { if (stream === own) work(() => fail(error)); });
    panel.hidden = false;
    show(true);
    own.timer = setInterval(() => {
      const unsure = own.certainty < 0.9 ? "; who is who is uncertain" : "";
      say(`Listening \u2026 ${Math.round(own.seconds)} s, ${own.behind.toFixed(1)} s behind${unsure}`);
      if (own.seconds > seconds) work(end);
    }, 250);
  }

  function stopped() {
    const was = stream;
    clearInterval(was.timer);
    stream = null;
    show(false);
    return was;
  }

  // What was heard, to be played and downloaded.
  function keep(was) {
    was.talkers.forEach((talker, n) => {
      const audio = new Audio(URL.createObjectURL(wavOf(talker.kept, was.context.sampleRate)));
      audio.controls = true;
      const link = document.createElement("a");
      link.href = audio.src;
      link.download = `live_s${n + 1}.wav`;
      link.textContent = "Download";
      talker.meter.replaceWith(audio, " ", link);
    });
  }

  async function fail(error) {
    const was = stopped();
    was.leave();
    keep(was);
    throw error;
  }

  async function end() {
    const was = stopped();
    say("Finishing \u2026");
    try {
      await was.finish();
      say(`Listened for ${was.seconds.toFixed(0)} s.`);
    } catch (error) {
      was.leave();
      throw error;
    } finally {
      keep(was);
    }
  }

  // One thing at a time: a second click while the first one is worked on does nothing.
  async function work(what) {
    if (button.disabled) return;
    button.disabled = true;
    try {
      await what();
    } catch (error) {
      say(error instanceof Refusal ? error.message : String(error), true);
    } finally {
      button.disabled = false;
    }
  }

  button.addEventListener("click", () => work(stream ? end : begin));
  heard.addEventListener("change", choose);
  window.addEventListener("pagehide", () => { if (stream) stopped().leave(); });
}
