// What OpenAI's package for Node is tried with: `node openai_node.mjs CHECK MODEL...`, in a folder that has the package.
// A check that fails throws. BASE_URL and API_KEY say where the server is and who asks.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const library = createRequire(join(process.cwd(), "here.js"));
const { default: OpenAI, toFile } = await import(pathToFileURL(library.resolve("openai")));
const options = { baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY, maxRetries: 0, timeout: 60_000 };
const client = new OpenAI(options);

const hello = [{ role: "user", content: "Hello" }];
const question = [{ role: "user", content: "Paris, 3 days" }];
const parameters = {
  type: "object",
  properties: { city: { type: "string" }, days: { type: "integer" } },
  required: ["city", "days"],
  additionalProperties: false,
};
const expected = { city: "Paris, 3 days", days: 3 };

const checks = {
  async chat(model) {
    const answer = await client.chat.completions.create({ model, messages: hello });
    assert.equal(answer.choices[0].message.content, "Echo: Hello");
    assert.equal(answer.choices[0].finish_reason, "stop");
    assert.ok(answer.usage.total_tokens > 0);
    assert.ok(answer._request_id);
  },

  async stream(model) {
    const chunks = [];
    const messages = [{ role: "user", content: "Count from 1 to 9" }];
    const asked = { model, messages, stream: true, stream_options: { include_usage: true } };
    for await (const chunk of await client.chat.completions.create(asked)) chunks.push(chunk);
    const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
    assert.equal(text, "1, 2, 3, 4, 5, 6, 7, 8, 9");
    assert.deepEqual(chunks.at(-1).choices, []);
    assert.ok(chunks.at(-1).usage.completion_tokens > 0);
  },

  async streaming_helper(model) {
    const final = await client.chat.completions.stream({ model, messages: hello }).finalChatCompletion();
    assert.equal(final.choices[0].message.content, "Echo: Hello");
  },

  async tools_by_hand(model) {
    const tools = [{ type: "function", function: { name: "weather", parameters } }];
    const messages = [...question];
    const first = await client.chat.completions.create({ model, messages, tools, tool_choice: "required" });
    const [call] = first.choices[0].message.tool_calls;
    assert.deepEqual(JSON.parse(call.function.arguments), expected);
    messages.push(first.choices[0].message, { role: "tool", tool_call_id: call.id, content: "sunny" });
    const last = await client.chat.completions.create({ model, messages, tools });
    assert.match(last.choices[0].message.content, /^Echo:/);
  },

  async tools_runner(model) {
    const asked = [];
    const weather = (given) => (asked.push(given), "sunny");
    const declared = { function: weather, parse: JSON.parse, name: "weather", description: "Tells it.", parameters };
    const runner = client.chat.completions.runTools({
      model,
      messages: question,
      stream: true,
      tools: [{ type: "function", function: declared }],
    });
    assert.match(await runner.finalContent(), /^Echo:/);
    assert.deepEqual(asked, [expected]);
  },

  async json_schema(model) {
    const response_format = { type: "json_schema", json_schema: { name: "trip", strict: true, schema: parameters } };
    const answer = await client.chat.completions.create({ model, messages: question, response_format });
    assert.deepEqual(JSON.parse(answer.choices[0].message.content), expected);
  },

  async responses(model) {
    const first = await client.responses.create({ model, input: "Hello" });
    assert.equal(first.output_text, "Echo: Hello");
    const second = await client.responses.create({ model, input: "More", previous_response_id: first.id });
    assert.equal(second.previous_response_id, first.id);
    assert.equal((await client.responses.retrieve(first.id)).output_text, "Echo: Hello");
    await client.responses.delete(first.id);
    await assert.rejects(client.responses.retrieve(first.id), OpenAI.NotFoundError);
  },

  async responses_in_a_stream(model) {
    const kinds = [];
    const stream = client.responses.stream({ model, input: "Hello" });
    for await (const event of stream) kinds.push(event.type);
    assert.equal((await stream.finalResponse()).output_text, "Echo: Hello");
    assert.equal(kinds[0], "response.created");
    assert.equal(kinds.at(-1), "response.completed");
  },

  async completions(model) {
    const answer = await client.completions.create({ model, prompt: "Count from 1 to 3:" });
    assert.equal(answer.choices[0].text, " 1, 2, 3");
  },

  async embeddings() {
    const input = ["a river", "a bridge"];
    const answer = await client.embeddings.create({ model: "text-embedding-3-small", input });
    assert.equal(answer.data.length, 2);
    for (const { embedding } of answer.data) assert.ok(Math.abs(Math.hypot(...embedding) - 1) < 1e-4);
    const short = await client.embeddings.create({ model: "text-embedding-3-small", input, dimensions: 8 });
    assert.equal(short.data[1].embedding.length, 8);
  },

  async files() {
    const file = await toFile(Buffer.from("a,b\n1,2\n"), "Größe.csv");
    const kept = await client.files.create({ file, purpose: "user_data" });
    assert.equal(kept.filename, "Größe.csv");
    assert.equal((await client.files.retrieve(kept.id)).bytes, 8);
    assert.equal(await (await client.files.content(kept.id)).text(), "a,b\n1,2\n");
    const listed = [];
    for await (const one of client.files.list()) listed.push(one.id);
    assert.ok(listed.includes(kept.id));
    assert.ok((await client.files.delete(kept.id)).deleted);
    await assert.rejects(client.files.retrieve(kept.id), OpenAI.NotFoundError);
  },

  async models(model) {
    const listed = [];
    for await (const one of client.models.list()) listed.push(one.id);
    assert.ok(listed.includes(model));
    assert.equal((await client.models.retrieve(`react/${model}`)).id, `react/${model}`);
  },

  async errors() {
    const unknown = client.chat.completions.create({ model: "no-such-model", messages: hello });
    await assert.rejects(unknown, (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError);
      assert.deepEqual([error.status, error.code, error.param], [404, "model_not_found", "model"]);
      return Boolean(error.requestID);
    });
    const wrong = client.chat.completions.create({ messages: hello, temperature: "hot" });
    await assert.rejects(wrong, (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature");
    const stranger = new OpenAI({ ...options, apiKey: "sk-wrong" });
    await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
  },

  async abort(model) {
    const messages = [{ role: "user", content: "Count from 1 to 1000" }];
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    let chunks = 0;
    for await (const chunk of stream) {
      assert.ok(chunk.id);
      if (++chunks === 3) stream.controller.abort();
    }
    assert.ok(chunks < 100);
  },

  async engine(model) {
    const asked = { model, messages: hello, max_tokens: 8 };
    assert.ok((await client.chat.completions.create(asked)).choices[0].message.content);
    let text = "";
    for await (const chunk of await client.chat.completions.create({ ...asked, stream: true }))
      text += chunk.choices[0]?.delta.content ?? "";
    assert.ok(text);
  },
};

const [name, ...models] = process.argv.slice(2);
for (const model of models) await checks[name](model);
