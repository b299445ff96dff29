// Upload or record, wait, show the players that came back.
(() => {
  const $ = (id) => document.getElementById(id);
  const drop = $("drop");
  const [most, seconds] = [Number(drop.dataset.bytes), Number(drop.dataset.seconds)];
  let recorder = null;
  let busy = false;

  function say(text, wrong = false) {
    $("status").textContent = text;
    $("status").className = wrong ? "absent" : "";
  }

  function lock(on) {
    busy = on;
    drop.classList.toggle("busy", on);
    $("file").disabled = $("record").disabled = on;
  }

  async function separate(blob, name) {
    if (busy) return;
    if (blob.size > most) { say(`${name}: is larger than ${most / 1e6} MB`, true); return; }
    lock(true);
    const start = Date.now();
    const tell = () => say(`Separating ${name} \u2026 ${Math.round((Date.now() - start) / 1000)} s`);
    tell();
    const timer = setInterval(tell, 1000);
    try {
      const answer = await fetch(`separate?name=${encodeURIComponent(name)}`, { method: "POST", body: blob });
      const found = await answer.json();
      if (!answer.ok) throw new Error(found.error);
      show(found);
      say(`${name}: ${found.seconds.toFixed(1)} s of sound, separated in ${((Date.now() - start) / 1000).toFixed(1)} s.`);
    } catch (error) {
      say(error instanceof TypeError ? "sepml does not answer; is it still running?" : error.message, true);
    } finally {
      clearInterval(timer);
      lock(false);
      $("file").value = "";
    }
  }

  function show(found) {
    const section = document.createElement("section");
    section.className = "result";
    const heading = document.createElement("h2");
    heading.textContent = found.name;
    const note = document.createElement("p");
    note.className = "soft";
    note.textContent = `${found.rate} Hz. ${found.note}`;
    const signals = document.createElement("div");
    signals.className = "signals";
    // Made by sepml; the name of the upload is not in it.
    signals.innerHTML = found.players.join("");
    const stem = found.name.replace(/\.[^.]*$/, "");
    signals.querySelectorAll(".signal").forEach((figure, n) => {
      if (n === 0) return;
      const link = document.createElement("a");
      link.href = figure.querySelector("audio").getAttribute("src");
      link.download = `${stem}_s${n}.wav`;
      link.textContent = `Download ${link.download}`;
      figure.append(link);
    });
    section.append(heading, note, signals);
    $("results").prepend(section);
    while ($("results").children.length > 8) $("results").lastChild.remove();
  }

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
      $("record").textContent = "Record";
      $("record").setAttribute("aria-pressed", "false");
      separate(new Blob(parts, { type: kind }), `recording.${kind.includes("mp4") ? "m4a" : kind.includes("ogg") ? "ogg" : "webm"}`);
    });
    recorder.start();
    $("record").textContent = "Stop";
    $("record").setAttribute("aria-pressed", "true");
  }

  $("file").addEventListener("change", () => { if ($("file").files.length) separate($("file").files[0], $("file").files[0].name); });
  $("record").addEventListener("click", record);
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const file = event.dataTransfer.files[0];
    if (file) separate(file, file.name);
  });
  watchPlayers(document);
})();
