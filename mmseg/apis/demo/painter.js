// Marks objects in a picture: a brush, an eraser, and clicks that take what has the colour of a place.

const STEPS_BACK = 20;

export class Painter {
  // canvas: shows the picture under the colours of the objects; colours: [[r, g, b], ...] of the objects 1, 2, ...
  // changed: is called after every change of the mask.
  constructor(canvas, colours, changed) {
    Object.assign(this, { canvas, colours, changed, id: 1, tool: "brush", size: 25, last: null, history: [] });
    this.rows = [Infinity, 0]; // the first one that has changed since it was drawn, and the one behind the last
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.ids = new Uint8Array(0);
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => this.end());
  }

  // Show a picture (an image that is loaded) and begin with a mask: a byte for each pixel, or nothing.
  show(picture, ids) {
    const { naturalWidth: width, naturalHeight: height } = picture;
    Object.assign(this.canvas, { width, height });
    this.context.drawImage(picture, 0, 0);
    this.pixels = this.context.getImageData(0, 0, width, height);
    this.ids = ids?.length === width * height ? ids : new Uint8Array(width * height);
    this.history = [];
    this.drawAll();
  }

  get isMarked() {
    return this.ids.some((id) => id);
  }

  undo() {
    if (this.history.length) this.ids = this.history.pop();
    this.drawAll();
  }

  clear() {
    this.remember();
    this.ids = new Uint8Array(this.ids.length);
    this.drawAll();
  }

  remember() {
    this.history.push(this.ids.slice());
    if (this.history.length > STEPS_BACK) this.history.shift();
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) * this.canvas.width) / box.width);
    const y = Math.floor(((event.clientY - box.top) * this.canvas.height) / box.height);
    return [Math.min(Math.max(x, 0), this.canvas.width - 1), Math.min(Math.max(y, 0), this.canvas.height - 1)];
  }

  begin(event) {
    if (!this.ids.length || event.button > 0) return;
    event.preventDefault();
    this.remember();
    const place = this.place(event);
    if (this.tool === "click") {
      this.fill(...place);
      this.drawAll();
      return;
    }
    this.canvas.setPointerCapture(event.pointerId);
    this.last = place;
    this.line(place, place);
  }

  move(event) {
    if (!this.last) return;
    const place = this.place(event);
    this.line(this.last, place);
    this.last = place;
  }

  end() {
    this.last = null;
  }

  // The radius of the brush: 1 to 100 are 0.3 to 15 hundredths of the picture's shorter side.
  get radius() {
    return Math.max(1, (Math.min(this.canvas.width, this.canvas.height) * (0.15 + 0.15 * this.size)) / 100);
  }

  line([x0, y0], [x1, y1]) {
    const id = this.tool === "eraser" ? 0 : this.id;
    const radius = this.radius;
    const steps = Math.ceil(Math.hypot(x1 - x0, y1 - y0) / Math.max(1, radius / 2)) || 1;
    for (let i = 0; i <= steps; i++) this.disc(x0 + ((x1 - x0) * i) / steps, y0 + ((y1 - y0) * i) / steps, radius, id);
    this.draw(Math.min(y0, y1) - radius, Math.max(y0, y1) + radius);
  }

  disc(x, y, radius, id) {
    const { width, height } = this.canvas;
    for (let row = Math.max(0, Math.ceil(y - radius)); row <= Math.min(height - 1, y + radius); row++) {
      const half = Math.sqrt(radius * radius - (row - y) ** 2);
      const first = Math.max(0, Math.ceil(x - half));
      const last = Math.min(width - 1, Math.floor(x + half));
      if (last >= first) this.ids.fill(id, row * width + first, row * width + last + 1);
    }
  }

  // What is connected with a place and has about its colour; `size` is how far a colour may be away.
  fill(x, y) {
    const { width, height } = this.canvas;
    const data = this.pixels.data;
    const start = 4 * (y * width + x);
    const seen = new Uint8Array(width * height);
    const stack = [y * width + x];
    seen[stack[0]] = 1;
    const alike = (at) =>
      Math.abs(data[4 * at] - data[start]) <= this.size &&
      Math.abs(data[4 * at + 1] - data[start + 1]) <= this.size &&
      Math.abs(data[4 * at + 2] - data[start + 2]) <= this.size;
    while (stack.length) {
      const at = stack.pop();
      this.ids[at] = this.id;
      const column = at % width;
      const next = [column ? at - 1 : -1, column < width - 1 ? at + 1 : -1, at - width, at + width];
      for (const other of next) {
        if (other < 0 || other >= width * height || seen[other]) continue;
        seen[other] = 1;
        if (alike(other)) stack.push(other);
      }
    }
  }

  drawAll() {
    this.draw(0, this.canvas.height);
  }

  // Rows `first` to `last` have changed: draw them, at most once for each frame of the screen.
  draw(first, last) {
    const [from, to] = this.rows;
    this.rows = [Math.min(from, first), Math.max(to, last + 1)];
    this.drawing ??= requestAnimationFrame(() => {
      this.drawing = null;
      this.drawNow();
    });
  }

  drawNow() {
    const { ids } = this;
    const { width, height } = this.canvas;
    const top = Math.max(0, Math.floor(this.rows[0]) - 1); // one more, whose border may be new
    const bottom = Math.min(height, Math.ceil(this.rows[1]));
    this.rows = [Infinity, 0];
    const start = top * width;
    const data = this.pixels.data.slice(4 * start, 4 * bottom * width);
    for (let at = start; at < bottom * width; at++) {
      const id = ids[at];
      const border = id !== ids[at + 1] || id !== ids[at + width]; // white, so that it is seen on any colour
      if (!id && !(border && (ids[at + 1] || ids[at + width]))) continue;
      const colour = border ? [255, 255, 255] : this.colours[(id - 1) % this.colours.length];
      const opacity = border ? 0.9 : 0.55;
      const pixel = 4 * (at - start);
      for (let c = 0; c < 3; c++) data[pixel + c] += opacity * (colour[c] - data[pixel + c]);
    }
    this.context.putImageData(new ImageData(data, width, bottom - top), 0, top);
    this.changed();
  }
}
