// The score of one image by an exported file, in node: node score.mjs line.onnx image.rgb HEIGHT WIDTH
// image.rgb: bytes in rows, three a pixel. Needs: npm install onnxruntime-web
import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-web";

const [file, image, height, width] = process.argv.slice(2);
const model = readFileSync(file);
// The description is JSON under the key "dracones" of the file's metadata, which the runtime does not show.
const start = model.indexOf('{"format": ');
let depth = 0, end = start;
for (let quoted = false; ; end++) {
  const sign = String.fromCharCode(model[end]);
  if (quoted && sign === "\\") end++;
  else if (sign === '"') quoted = !quoted;
  else if (!quoted && sign === "{") depth++;
  else if (!quoted && sign === "}" && --depth === 0) break;
}
const facts = JSON.parse(model.subarray(start, end + 1).toString());
const pixels = readFileSync(image), [h, w] = [Number(height), Number(width)];
const planes = Uint8Array.from({ length: 3 * h * w }, (_, i) => pixels[3 * (i % (h * w)) + Math.floor(i / (h * w))]);
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(model);
const answer = await session.run({ image: new ort.Tensor("uint8", planes, [1, 3, h, w]) });
console.log(JSON.stringify({ method: facts.method.name, score: answer.score.data[0], anomaly: !!answer.is_anomaly.data[0] }));
