// All players of a recording in sync, of which one is heard (solo) or those that are not muted.
function compareIn(section) {
  const figures = [...section.querySelectorAll(".signal")];
  const players = figures.map((figure) => figure.querySelector("audio"));
  const [button, slider, time] = ["button.play", "input", ".time"].map((name) => section.querySelector(`.compare ${name}`));
  const seconds = Number(slider.max);
  const farthest = 0.05;
  let timer = null;
  // The mixture first.
  let solo = 0;
  const muted = players.map(() => false);

  const silent = (n) => (solo === null ? muted[n] : n !== solo);
  // The one that is heard sets the time, as a player that jumps clicks.
  const leader = () => players[Math.max(0, players.findIndex((_, n) => !silent(n)))];
  const playing = () => section.classList.contains("together");

  function apply() {
    figures.forEach((figure, n) => {
      figure.classList.toggle("silent", silent(n));
      figure.querySelector(".solo").setAttribute("aria-pressed", String(n === solo));
      figure.querySelector(".mute").setAttribute("aria-pressed", String(muted[n]));
      if (playing()) players[n].muted = silent(n);
    });
  }

  function show(at) {
    const clock = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;
    slider.value = at;
    slider.setAttribute("aria-valuetext", clock(at));
    time.textContent = `${clock(at)} / ${clock(seconds)}`;
  }

  function seek(at) {
    players.forEach((audio) => { audio.currentTime = at; });
    show(at);
  }

  function follow() {
    const at = leader().currentTime;
    players.forEach((audio) => {
      if (Math.abs(audio.currentTime - at) > farthest && !audio.seeking) audio.currentTime = at;
      placeCursor(audio);
    });
    show(at);
  }

  function stop() {
    if (!playing()) return;
    section.classList.remove("together");
    clearInterval(timer);
    players.forEach((audio) => audio.pause());
    show(leader().currentTime);
    button.textContent = "Play in sync";
  }

  function start() {
    const at = Number(slider.value);
    section.classList.add("together");
    apply();
    seek(at > seconds - 0.1 ? 0 : at);
    button.textContent = "Pause";
    timer = setInterval(follow, 100);
    Promise.all(players.map((audio) => audio.play())).catch(stop);
  }

  figures.forEach((figure, n) => {
    figure.querySelector(".solo").addEventListener("click", () => {
      solo = solo === n ? null : n;
      // The speakers together are the mixture already, which would make them twice as loud.
      if (solo === null && !muted.includes(true)) muted[0] = true;
      if (solo !== null) muted[n] = false;
      apply();
    });
    figure.querySelector(".mute").addEventListener("click", () => {
      muted[n] = !muted[n];
      if (solo === n) solo = null;
      apply();
    });
    figure.querySelector(".picture").addEventListener("click", (event) => {
      const box = figure.querySelector(".picture").getBoundingClientRect();
      if (playing()) seek((seconds * (event.clientX - box.left)) / box.width);
    });
    // One player's own button: it alone is heard, or all stop with it.
    players[n].addEventListener("play", () => { if (!playing()) players[n].muted = false; });
    players[n].addEventListener("pause", stop);
  });
  button.addEventListener("click", () => (playing() ? stop() : start()));
  slider.addEventListener("input", () => seek(Number(slider.value)));
  apply();
  show(0);
}
