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
    panel.querySelector(".hear").hidden = !listening;
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
