// What OpenAI's own SDK for Node gets from the edge, with nothing changed but base URL and key.
//
// usage: openai_client.mjs BASE_URL KEY all|retries
// Prints a JSON object of what each step gave; openai_client.py prints the same.
import OpenAI from "openai";

const [baseURL, apiKey, steps] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const results = {};
const hello = [{ role: "user", content: "hello" }];
// Most models fill properties in their order: that has to reach it.
const schema = {
  type: "object",
  properties: { why: { type: "string" }, city: { type: "string" } },
  required: ["why", "city"],
  additionalProperties: false,
};
const tool = (name) => ({ type: "function", function: { name, description: "Tells.", parameters: schema, strict: true } });
const usage = ({ usage }) => [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens];

async function refused(step, call) {
  try {
    await call();
    results[step] = "it went well";
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    const should = error.headers?.get("x-should-retry") ?? null;
    results[step] = [error.status, error.code, error.type, error.param, error.constructor.name, should];
  }
}

async function completions() {
  let answer = await client.chat.completions.create({ model: "stub-20-20", messages: hello });
  results["chat"] = [answer.object, answer.model, answer.choices[0].message.content, answer.choices[0].finish_reason, usage(answer)];

  const chunks = [];
  const asked = { model: "stub-20-20", messages: hello, stream: true, stream_options: { include_usage: true } };
  for await (const chunk of await client.chat.completions.create(asked)) chunks.push(chunk);
  const said = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
  const last = chunks.at(-1);
  results["stream"] = [said, chunks[0].choices[0].delta.role, new Set(chunks.map(({ id }) => id)).size, last.choices.length, usage(last)];

  answer = await client.chat.completions.create({ model: "one-tool", messages: hello, tools: [tool("weather")], tool_choice: "required" });
  const { message } = answer.choices[0];
  const call = message.tool_calls[0];
  results["tool"] = [message.content ?? null, call.type, call.function.name, JSON.parse(call.function.arguments), answer.choices[0].finish_reason];

  const told = { role: "tool", tool_call_id: call.id, content: "21" };
  answer = await client.chat.completions.create({ model: "stub-20-20", messages: [...hello, message, told], tools: [tool("weather")] });
  results["tool result"] = answer.choices[0].finish_reason;

  const stream = client.chat.completions.stream({ model: "two-tools", messages: hello, tools: [tool("weather"), tool("time")] });
  let pieces = 0;
  stream.on("tool_calls.function.arguments.delta", () => (pieces += 1));
  const final = (await stream.finalChatCompletion()).choices[0];
  const calls = final.message.tool_calls.map(({ function: { name, arguments: text } }) => [name, JSON.parse(text)]);
  results["parallel tools, streamed"] = [calls, final.message.content, final.finish_reason, pieces > 1];

  const form = { type: "json_schema", json_schema: { name: "place", schema, strict: true } };
  answer = await client.chat.completions.create({ model: "a-form", messages: hello, response_format: form });
  results["response format"] = JSON.parse(answer.choices[0].message.content);

  let heard = "";
  try {
    for await (const chunk of await client.chat.completions.create({ model: "cut-off", messages: hello, stream: true })) {
      heard += chunk.choices[0].delta.content ?? "";
      if (chunk.choices[0].finish_reason) throw new Error("it says that it has ended");
    }
    results["cut"] = "it went well";
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    results["cut"] = [heard, error.code];
  }
}

async function others() {
  const asked = { model: "text-embedding-3-small", input: ["one", "two words"] };
  const usual = await client.embeddings.create(asked);
  const floats = await client.embeddings.create({ ...asked, encoding_format: "float" });
  const vectors = ({ data }) => data.map(({ embedding }) => Array.from(embedding));
  const same = JSON.stringify(vectors(usual)) === JSON.stringify(vectors(floats));
  results["embeddings"] = [same, vectors(usual)[1].slice(0, 2), usual.usage.prompt_tokens];

  const listed = [];
  for await (const model of client.models.list()) listed.push(model.id);
  const model = await client.models.retrieve("stub-20-20");
  results["models"] = [listed.includes("stub-20-20"), listed.includes("offline"), model.id, model.object, model.owned_by];
}

async function refusals() {
  const of = (more, options) => () => client.chat.completions.create({ model: "stub-20-20", messages: hello, ...more }, options);
  const stranger = new OpenAI({ baseURL, apiKey: "nobody's", maxRetries: 0 });
  await refused("a wrong key", () => stranger.chat.completions.create({ model: "stub-20-20", messages: hello }));
  await refused("an unknown model", of({ model: "nobody-has-this" }));
  await refused("a model to get that is not there", () => client.models.retrieve("nobody-has-this"));
  await refused("too long", of({ messages: [{ role: "user", content: "x".repeat(300_000) }] }));
  const dear = [{ role: "user", content: "x".repeat(200_000) }];
  await refused("not enough credits", of({ messages: dear }));
  await refused("not enough credits for a stream", of({ messages: dear, stream: true }));
  await refused("several answers", of({ n: 2 }));
  await refused("a parameter that is unknown", of({ best_of: 2 }));
  await refused("tokens to embed", () => client.embeddings.create({ model: "text-embedding-3-small", input: [1, 2] }));
}

async function retries() {
  // The mesh repeats it by itself.
  await client.chat.completions.create({ model: "fails-once", messages: hello });
  for await (const chunk of await client.chat.completions.create({ model: "fails-once", messages: hello, stream: true })) void chunk;
  // Here only the SDK goes on.
  const patient = new OpenAI({ baseURL, apiKey, maxRetries: 2 });
  results["retried"] = usage(await patient.chat.completions.create({ model: "fails-often", messages: hello }));
}

if (steps === "retries") await retries();
else {
  await completions();
  await others();
  await refusals();
}
process.stdout.write(JSON.stringify(results));
