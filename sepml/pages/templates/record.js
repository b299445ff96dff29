// The microphone, to a file.
function watchMicrophone(button, seconds, say, take) {
  let recorder = null;

  async function record() {
    if (recorder) { recorder.stop(); return; }
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
    } catch (error) {
      say(navigator.mediaDevices ? `No microphone: ${error.message}` : "Browsers record on https pages and on this machine's own address only.", true);
      return;
    }
    const parts = [];
    recorder = new MediaRecorder(stream);
    recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
    const start = Date.now();
    const timer = setInterval(() => {
      const past = (Date.now() - start) / 1000;
      say(`Recording \u2026 ${Math.round(past)} s`);
      if (past > seconds - 1 && recorder) recorder.stop();
    }, 250);
    recorder.addEventListener("stop", () => {
      clearInterval(timer);
      stream.getTracks().forEach((track) => track.stop());
      const kind = recorder.mimeType;
      recorder = null;
      button.textContent = "Record";
      button.setAttribute("aria-pressed", "false");
      const suffix = kind.includes("mp4") ? "m4a" : kind.includes("ogg") ? "ogg" : "webm";
      take(new File(parts, `recording.${suffix}`, { type: kind }));
    });
    recorder.start();
    button.textContent = "Stop";
    button.setAttribute("aria-pressed", "true");
  }

  button.addEventListener("click", record);
}
