'use strict';
// Values on hover or touch, series switched by their names. Without scripts the page shows the same, and charts
// have the browser's own titles.
const tip = document.getElementById('tip');
const hide = () => { tip.style.display = 'none'; };
for (const svg of document.querySelectorAll('.panels svg')) {
  const points = [...svg.querySelectorAll('.point')].map((group) => {
    const title = group.querySelector('title');
    const text = title ? title.textContent : '';
    if (title) title.remove();
    return { group, text };
  });
  const show = (event) => {
    let best = null;
    let reach = 28;
    for (const { group, text } of points) {
      const box = group.getBoundingClientRect();
      if (!text || (!box.width && !box.height)) continue;
      const far = Math.hypot(event.clientX - box.x - box.width / 2, event.clientY - box.y - box.height / 2);
      if (far < reach) {
        reach = far;
        best = { text, box };
      }
    }
    if (!best) return hide();
    tip.textContent = best.text;
    tip.style.display = 'block';
    const width = tip.offsetWidth;
    const left = best.box.x + best.box.width / 2 - width / 2;
    tip.style.left = Math.max(4, Math.min(left, document.documentElement.clientWidth - width - 4)) + 'px';
    const above = best.box.y - tip.offsetHeight - 8;
    tip.style.top = (above > 4 ? above : best.box.bottom + 8) + 'px';
  };
  svg.addEventListener('pointermove', show);
  svg.addEventListener('pointerdown', show);
  svg.addEventListener('pointerleave', hide);
  for (const key of svg.querySelectorAll('.key')) {
    const series = svg.querySelector('.series[data-series="' + key.dataset.series + '"]');
    const toggle = () => {
      const off = series.classList.toggle('off');
      key.classList.toggle('off', off);
      key.setAttribute('aria-pressed', String(!off));
      hide();
    };
    key.setAttribute('role', 'button');
    key.setAttribute('tabindex', '0');
    key.setAttribute('aria-pressed', 'true');
    key.addEventListener('click', toggle);
    key.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' && event.key !== ' ') return;
      event.preventDefault();
      toggle();
    });
  }
}
addEventListener('scroll', hide, { passive: true });
addEventListener('beforeprint', () => {
  for (const details of document.querySelectorAll('details')) details.open = true;
});
