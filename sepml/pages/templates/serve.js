// The page: recordings in, a card for each, with its progress and then its players.
(() => {
  const $ = (id) => document.getElementById(id);
  const dropArea = $("drop");
  const most = Number(dropArea.dataset.bytes);
  // While one is separated the next waits on the server already.
  const together = 2;
  // Absent where one separator is for all.
  const speakers = $("speakers");
  let cards = [];

  function say(text, wrong = false) {
    $("status").textContent = text;
    $("status").className = wrong ? "absent" : "";
  }

  // How far the recordings of this choice are.
  function sum() {
    const [done, failed] = ["done", "failed"].map((state) => cards.filter((card) => card.state === state));
    const tokens = done.map((card) => `job=${encodeURIComponent(card.token)}`);
    $("everything").hidden = !tokens.length;
    $("everything").firstElementChild.href = `results.zip?${tokens.join("&")}`;
    if (cards.length === 1) {
      const [card] = cards;
      say(card.state === "failed" ? card.said : card.state === "done" ? `${card.name}: separated.` : `${card.name} \u2026`, card.state === "failed");
    } else if (cards.length) {
      const refused = failed.length ? `, ${failed.length} not` : "";
      say(`${done.length} of ${cards.length} recordings separated${refused}.`, failed.length > 0);
    }
  }

  function newCard(file) {
    const element = $("card").content.firstElementChild.cloneNode(true);
    element.querySelector("h2").textContent = file.name;
    const card = { file, name: file.name, element, state: "waiting", token: null, said: "", control: new AbortController() };
    element.querySelector(".progress button").addEventListener("click", () => forget(card));
    element.querySelector(".progress button").setAttribute("aria-label", `cancel: ${file.name}`);
    tell(card, "Waiting to be sent", null);
    $("results").append(element);
    return card;
  }

  function tell(card, text, fraction) {
    const bar = card.element.querySelector("progress");
    if (!bar) return;
    if (fraction === null) bar.removeAttribute("value");
    else bar.value = fraction;
    bar.setAttribute("aria-label", `${card.name}: ${text}`);
    card.element.querySelector(".progress span").textContent = text;
  }

  function finish(card, state, said) {
    card.state = state;
    card.said = said;
    card.element.querySelector(".progress").remove();
    // Of one recording the line above says it.
    if (state === "failed" && cards.length === 1) card.element.remove();
    else if (state === "failed") {
      const line = document.createElement("p");
      line.className = "absent";
      line.textContent = said;
      card.element.append(line);
    }
    sum();
  }

  function forget(card) {
    card.control.abort();
    if (card.token) drop(card.token);
    if (card.state === "waiting") finish(card, "failed", `${card.name}: cancelled`);
  }

  async function work(card) {
    if (card.state !== "waiting") return;
    try {
      if (card.file.size > most) throw new Refusal(dropArea.dataset.tooLarge.replace("{name}", card.name));
      const started = (token) => {
        card.token = token;
        card.arrived();
        if (card.control.signal.aborted) drop(token);
      };
      const found = await separate(card.file, card.name, speakers ? speakers.value : "auto", (text, fraction) => tell(card, text, fraction), card.control.signal, started);
      const content = document.createElement("div");
      // Made by sepml, which escapes what comes from the upload.
      content.innerHTML = found.html;
      card.element.append(...content.childNodes);
      compareIn(card.element);
      finish(card, "done", "");
    } catch (error) {
      if (card.state !== "waiting") return;
      if (!(error instanceof Refusal)) throw error;
      const named = error.message.startsWith(`${card.name}: `);
      finish(card, "failed", named ? error.message : `${card.name}: ${error.message}`);
    }
  }

  // New recordings take the place of the earlier ones, so that nothing below belongs to others.
  async function take(files) {
    if (!files.length) return;
    cards.forEach(forget);
    $("results").replaceChildren();
    const chosen = cards = files.map(newCard);
    sum();
    const running = new Set();
    for (const card of chosen) {
      while (running.size >= together) await Promise.race(running);
      if (cards !== chosen) return;
      // The next is sent when this one has arrived, which keeps their order.
      const arrived = new Promise((done) => { card.arrived = done; });
      const worked = work(card).finally(() => running.delete(worked));
      running.add(worked);
      await Promise.race([arrived, worked]);
    }
  }

  $("file").addEventListener("change", () => {
    const files = [...$("file").files];
    $("file").value = "";
    take(files);
  });
  // Those that are there are separated anew.
  if (speakers) speakers.addEventListener("change", () => take(cards.map((card) => card.file)));
  dropArea.addEventListener("dragover", (event) => { event.preventDefault(); dropArea.classList.add("over"); });
  dropArea.addEventListener("dragleave", () => dropArea.classList.remove("over"));
  dropArea.addEventListener("drop", (event) => {
    event.preventDefault();
    dropArea.classList.remove("over");
    take([...event.dataTransfer.files]);
  });
  // Who leaves takes their recordings along; who comes back by the browser's button starts anew.
  window.addEventListener("pagehide", () => cards.forEach(forget));
  window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  watchMicrophone($("record"), Number(dropArea.dataset.seconds), say, (file) => take([file]));
  watchLive($("live"), $("live-panel"), Number(dropArea.dataset.seconds), () => (speakers ? speakers.value : "auto"), say);
  watchPlayers(document);
})();
