/* The quiz of a chapter: a box for an answer under each question. If the answer consists of numbers, the script marks it.
   Otherwise the reader compares it with the sample answer, and marks it. Answers and marks stay in this browser. */
document.addEventListener("DOMContentLoaded", () => {
  const quiz = document.querySelector("section#quiz");
  if (!quiz) return;
  const page = new URL(location.href).pathname.split("/").slice(-2)[0]; // such as 06-unet
  const KEY = `segedu.quiz.${page}`;
  const load = () => {
    try {
      return JSON.parse(localStorage.getItem(KEY) ?? "{}");
    } catch {
      return {};
    }
  };
  const stored = load();
  const save = () => {
    try {
      localStorage.setItem(KEY, JSON.stringify(stored));
    } catch {
      /* Without storage the marks last until the page is left. */
    }
  };
  const MARKS = { right: "Right", partly: "Partly right", wrong: "Not yet" };
  const button = (text) => Object.assign(document.createElement("button"), { type: "button", className: "progress-button", textContent: text });

  /* All numbers of an answer; "2/3" is one of them, and so is "4,800". */
  const numbersIn = (text) =>
    [...text.replace(/(\d),(?=\d{3}\b)/g, "$1").replace(/\u2212/g, "-").matchAll(/(?<![\w.])-?\d*\.?\d+(?:\s*\/\s*\d*\.?\d+)?/g)].map(([found]) => {
      const [above, below] = found.split("/").map(Number);
      return below === undefined ? above : above / below;
    });
  const contains = (text, key, tolerance) => {
    const found = numbersIn(text);
    return key.every((wanted) => found.some((number) => Math.abs(number - wanted) <= Math.max(tolerance * Math.abs(wanted), 0.005)));
  };

  const total = document.createElement("p");
  total.className = "quiz-total";
  total.setAttribute("aria-live", "polite");
  const questions = [];
  const showTotal = () => {
    const right = questions.filter((number) => stored[number]?.mark === "right").length;
    const marked = questions.filter((number) => stored[number]?.mark).length;
    total.textContent = marked ? `${right} of ${questions.length} right, ${questions.length - marked} still open.` : `${questions.length} questions.`;
  };

  quiz.querySelectorAll("p > strong:first-child").forEach((strong) => {
    const number = strong.textContent.match(/^(\d+)\./)?.[1];
    const question = strong.parentElement;
    const answer = question.nextElementSibling;
    if (!number || !answer?.matches("details")) return;
    questions.push(number);
    const key = answer.querySelector(".quiz-key")?.dataset;
    const numbers = key ? key.key.split(" ").map(Number) : null;

    const form = document.createElement("form");
    form.className = "quiz-form";
    const text = document.createElement("textarea");
    text.setAttribute("aria-label", `Your answer to question ${number}`);
    text.rows = 2;
    text.value = stored[number]?.text ?? "";
    const row = document.createElement("div");
    row.className = "quiz-buttons";
    const check = button(numbers ? "Check" : "Compare with the answer");
    const state = document.createElement("p");
    state.className = "quiz-state";
    state.setAttribute("aria-live", "polite");
    const own = Object.entries(MARKS).map(([mark, words]) => {
      const choice = button(words);
      choice.addEventListener("click", () => set(mark));
      return [mark, choice];
    });

    const show = () => {
      const mark = stored[number]?.mark;
      own.forEach(([name, choice]) => {
        choice.hidden = !!numbers || !answer.open;
        choice.setAttribute("aria-pressed", String(name === mark));
      });
      state.classList.toggle("right", mark === "right");
      if (numbers) state.textContent = { right: "\u2713 Right.", wrong: "Not yet. Try again, or open the answer." }[mark] ?? "";
      else state.textContent = answer.open ? "How good was yours?" : mark ? MARKS[mark] : "";
      showTotal();
    };
    const set = (mark) => {
      stored[number] = { ...stored[number], mark };
      save();
      show();
    };
    check.addEventListener("click", () => {
      stored[number] = { ...stored[number], text: text.value };
      if (numbers) set(contains(text.value, numbers, Number(key.tolerance)) ? "right" : "wrong");
      else answer.open = true;
      save();
      show();
    });
    text.addEventListener("change", () => {
      stored[number] = { ...stored[number], text: text.value };
      save();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    answer.addEventListener("toggle", show);
    row.append(check, ...own.map(([, choice]) => choice), state);
    form.append(text, row);
    question.after(form);
    show();
  });
  if (questions.length) quiz.querySelector("h2")?.after(total);
  showTotal();
});
