// Runs before the first paint, so that a chosen theme does not flash in the other one.
{
  const theme = localStorage.getItem("arc.theme");
  if (theme) document.documentElement.dataset.theme = theme;
}
