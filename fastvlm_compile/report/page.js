"use strict";
{
  const form = document.getElementById("filter");
  const groups = [...document.querySelectorAll("details.gates")];
  const chosen = (name) => document.getElementById(`filter-${name}`).value;
  const fold = (open) => groups.forEach((group) => { group.open = open; });

  const apply = () => {
    const [target, variant, status] = ["target", "variant", "status"].map(chosen);
    let shown = 0;
    for (const group of groups) {
      const meant =
        (!target || group.dataset.target === target) &&
        (!variant || group.dataset.variant === variant);
      let inside = 0;
      for (const row of group.querySelectorAll("tr[data-status]")) {
        row.hidden = Boolean(status) && row.dataset.status !== status;
        inside += row.hidden ? 0 : 1;
      }
      group.hidden = !meant || inside === 0;
      shown += group.hidden ? 0 : inside;
    }
    document.getElementById("filtered").textContent = `${shown} gates are shown`;
  };

  if (form) {
    form.hidden = false;
    form.addEventListener("change", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    document.getElementById("unfold").addEventListener("click", () => fold(true));
    document.getElementById("fold").addEventListener("click", () => fold(false));
    apply();
  }

  // Paper cannot be unfolded. What was folded is folded again afterwards.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((each) => { each.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((each) => { each.open = false; }));
}
