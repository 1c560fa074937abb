"""What OpenAI's own SDK for Python gets from the edge, with nothing changed but base URL and key.

usage: openai_client.py BASE_URL KEY all|retries
Prints a JSON object of what each step gave; openai_client.mjs prints the same.
"""

import json
import sys

import openai

base_url, key, steps = sys.argv[1:4]
client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=0)
results = {}
hello = [{"role": "user", "content": "hello"}]
# Most models fill properties in their order: that has to reach it.
schema = {
    "type": "object",
    "properties": {"why": {"type": "string"}, "city": {"type": "string"}},
    "required": ["why", "city"],
    "additionalProperties": False,
}


def tool(name):
    return {"type": "function", "function": {"name": name, "description": "Tells.", "parameters": schema, "strict": True}}


def usage(answer):
    return [answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens]


def refused(step, call):
    try:
        call()
        results[step] = "it went well"
    except openai.APIStatusError as error:
        body = error.body or {}
        kind = type(error).__name__
        results[step] = [error.status_code, error.code, body.get("type"), error.param, kind, error.response.headers.get("x-should-retry")]


def completions():
    answer = client.chat.completions.create(model="stub-20-20", messages=hello)
    results["chat"] = [answer.object, answer.model, answer.choices[0].message.content, answer.choices[0].finish_reason, usage(answer)]

    chunks = list(client.chat.completions.create(
        model="stub-20-20", messages=hello, stream=True, stream_options={"include_usage": True}))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    results["stream"] = [said, chunks[0].choices[0].delta.role, len({chunk.id for chunk in chunks}), len(chunks[-1].choices), usage(chunks[-1])]

    answer = client.chat.completions.create(model="one-tool", messages=hello, tools=[tool("weather")], tool_choice="required")
    message = answer.choices[0].message
    call = message.tool_calls[0]
    results["tool"] = [message.content, call.type, call.function.name, json.loads(call.function.arguments), answer.choices[0].finish_reason]

    told = [{"role": "tool", "tool_call_id": call.id, "content": "21"}]
    answer = client.chat.completions.create(model="stub-20-20", messages=[*hello, message, *told], tools=[tool("weather")])
    results["tool result"] = answer.choices[0].finish_reason

    with client.chat.completions.stream(model="two-tools", messages=hello, tools=[tool("weather"), tool("time")]) as stream:
        pieces = sum(event.type == "tool_calls.function.arguments.delta" for event in stream)
        final = stream.get_final_completion().choices[0]
    calls = [[call.function.name, json.loads(call.function.arguments)] for call in final.message.tool_calls]
    results["parallel tools, streamed"] = [calls, final.message.content, final.finish_reason, pieces > 1]

    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}}
    answer = client.chat.completions.create(model="a-form", messages=hello, response_format=form)
    results["response format"] = json.loads(answer.choices[0].message.content)

    heard = []
    try:
        for chunk in client.chat.completions.create(model="cut-off", messages=hello, stream=True):
            heard.append(chunk.choices[0].delta.content or "")
            assert chunk.choices[0].finish_reason is None
        results["cut"] = "it went well"
    except openai.APIError as error:
        results["cut"] = ["".join(heard), error.code]


def others():
    texts = ["one", "two words"]
    usual = client.embeddings.create(model="text-embedding-3-small", input=texts)
    floats = client.embeddings.create(model="text-embedding-3-small", input=texts, encoding_format="float")
    vectors = [list(item.embedding) for item in usual.data]
    results["embeddings"] = [vectors == [item.embedding for item in floats.data], vectors[1][:2], usual.usage.prompt_tokens]

    listed = [model.id for model in client.models.list()]
    model = client.models.retrieve("stub-20-20")
    results["models"] = ["stub-20-20" in listed, "offline" in listed, model.id, model.object, model.owned_by]


def refusals():
    completions = client.chat.completions
    stranger = openai.OpenAI(base_url=base_url, api_key="nobody's", max_retries=0)
    refused("a wrong key", lambda: stranger.chat.completions.create(model="stub-20-20", messages=hello))
    refused("an unknown model", lambda: completions.create(model="nobody-has-this", messages=hello))
    refused("a model to get that is not there", lambda: client.models.retrieve("nobody-has-this"))
    long = [{"role": "user", "content": "x" * 300_000}]
    refused("too long", lambda: completions.create(model="stub-20-20", messages=long))
    dear = [{"role": "user", "content": "x" * 200_000}]
    refused("not enough credits", lambda: completions.create(model="stub-20-20", messages=dear))
    refused("not enough credits for a stream", lambda: completions.create(model="stub-20-20", messages=dear, stream=True))
    refused("several answers", lambda: completions.create(model="stub-20-20", messages=hello, n=2))
    refused("a parameter that is unknown", lambda: completions.create(model="stub-20-20", messages=hello, extra_body={"best_of": 2}))
    refused("tokens to embed", lambda: client.embeddings.create(model="text-embedding-3-small", input=[1, 2]))


def retries():
    # The mesh repeats it by itself.
    client.chat.completions.create(model="fails-once", messages=hello)
    list(client.chat.completions.create(model="fails-once", messages=hello, stream=True))
    # Here only the SDK goes on.
    patient = openai.OpenAI(base_url=base_url, api_key=key, max_retries=2)
    answer = patient.chat.completions.create(model="fails-often", messages=hello)
    results["retried"] = usage(answer)


if steps == "retries":
    retries()
else:
    completions()
    others()
    refusals()
print(json.dumps(results))
