// Players: one at a time, a cursor in the pictures, a click there goes to that moment.
"use strict";

function placeCursor(audio) {
  const cursor = audio.closest(".signal")?.querySelector(".cursor");
  // Some have no picture.
  if (!cursor) return;
  cursor.style.visibility = "visible";
  cursor.style.left = `${(100 * audio.currentTime) / (audio.duration || 1)}%`;
}

// Those that play in sync (compare.js) do not stop each other.
function inSync(audio, other) {
  const group = audio.closest(".together");
  return group !== null && group.contains(other);
}

function watchPlayers(root) {
  let current = null;
  const follow = () => {
    if (!current || current.paused) return;
    placeCursor(current);
    requestAnimationFrame(follow);
  };
  // These events do not bubble, but can be caught on their way down.
  root.addEventListener("play", (event) => {
    if (current && current !== event.target && !inSync(event.target, current)) current.pause();
    current = event.target;
    requestAnimationFrame(follow);
  }, true);
  root.addEventListener("seeked", (event) => placeCursor(event.target), true);
  root.addEventListener("ended", (event) => placeCursor(event.target), true);
  root.addEventListener("click", (event) => {
    const picture = event.target.closest(".picture");
    if (!picture || picture.closest(".together")) return;
    const audio = picture.parentElement.querySelector("audio");
    const box = picture.getBoundingClientRect();
    // Silence first, then the place, then the sound: Chromium stops a player that starts while another one is being stopped.
    if (current && current !== audio) current.pause();
    current = audio;
    // Refused where the next click comes before the sound, which is no fault.
    const start = () => audio.play().catch(() => {});
    if (!audio.duration) { start(); return; }
    audio.addEventListener("seeked", start, { once: true });
    audio.currentTime = (audio.duration * (event.clientX - box.left)) / box.width;
  });
}
