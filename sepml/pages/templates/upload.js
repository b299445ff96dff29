// One recording from the browser to its result: sent, waited for, or refused with the server's words.
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const UNREACHABLE = "sepml does not answer; is it still running?";

class Refusal extends Error {}

// Sends a recording of `speakers` people; the answer's status and content. `tell` takes the fraction that is sent.
function send(file, name, speakers, tell, signal) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("POST", `jobs?speakers=${speakers}`);
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => { if (event.lengthComputable) tell(event.loaded / event.total); });
    request.addEventListener("load", () => done([request.status, request.response || {}]));
    request.addEventListener("error", () => failed(new Refusal(UNREACHABLE)));
    request.addEventListener("abort", () => failed(new Refusal("cancelled")));
    signal.addEventListener("abort", () => request.abort());
    const form = new FormData();
    form.append("file", file, name);
    request.send(form);
  });
}

// The state of a job; a single answer may fail, as when a laptop sleeps.
async function ask(token) {
  for (let attempt = 0; ; attempt++) {
    try {
      const answer = await fetch(`jobs/${token}`);
      const state = await answer.json();
      if (!answer.ok) throw new Refusal(answer.status === 404 ? "it is not kept any more; choose it again" : state.error);
      return state;
    } catch (error) {
      if (error instanceof Refusal) throw error;
      if (attempt === 3) throw new Refusal(UNREACHABLE);
      await pause(1000);
    }
  }
}

function drop(token) {
  fetch(`jobs/${token}`, { method: "DELETE", keepalive: true }).catch(() => {});
}

function duration(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  return whole < 90 ? `${whole} s` : `${Math.round(whole / 60)} min`;
}

// Sends a recording and follows it to its end. `tell(text, fraction)`: what is done, and how far, null where unknown.
async function separate(file, name, speakers, tell, signal, started) {
  let [status, answer] = [503, {}];
  while (status === 503) {
    [status, answer] = await send(file, name, speakers, (sent) => tell("Sending", sent), signal);
    if (status === 503) {
      tell(answer.error, null);
      for (let waited = 0; waited < 5000 && !signal.aborted; waited += 250) await pause(250);
    }
    if (signal.aborted) throw new Refusal("cancelled");
  }
  if (status !== 202) throw new Refusal(answer.error || `the server answers with status ${status}`);
  started(answer.job);
  for (;;) {
    const state = await ask(answer.job);
    if (signal.aborted) throw new Refusal("cancelled");
    if (state.state === "done") return state;
    if (state.state === "failed") throw new Refusal(state.error);
    if (state.state === "waiting") tell(`Waiting: ${state.ahead} before it`, null);
    else tell(state.left === null ? "Separating" : `Separating: about ${duration(state.left)} left`, state.fraction);
    await pause(400);
  }
}
