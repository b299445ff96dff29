// Wide tables: on which side there is more to see, and a hint that they scroll.
function watchTables(root) {
  for (const scroll of root.querySelectorAll(".wide > .scroll")) {
    const wide = scroll.parentElement;
    const look = () => {
      const rest = scroll.scrollWidth - scroll.clientWidth;
      wide.classList.toggle("overflows", rest > 1);
      wide.classList.toggle("more-left", scroll.scrollLeft > 1);
      wide.classList.toggle("more-right", scroll.scrollLeft < rest - 1);
      wide.style.setProperty("--scrolled", `${scroll.offsetHeight - 2}px`);
    };
    const watched = new ResizeObserver(look);
    watched.observe(scroll);
    watched.observe(scroll.firstElementChild);
    scroll.addEventListener("scroll", look, { passive: true });
    look();
  }
}
