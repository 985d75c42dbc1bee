"""Cells of a notebook, where an event loop is running already: the synchronous clients work there as anywhere else."""

# %% set up once
from openai import OpenAI

from openproto import Memory
from openproto.integrations.llm import CaptureQueue, wrap

memory = Memory.from_env()
llm = wrap(OpenAI(), memory, user_id="ada")

# %% talk
told = llm.responses.create(model="gpt-5-mini", input="I take my coffee black")
print(told.output_text)

# %% wait for what runs in the background, then ask
print("stored:", CaptureQueue.of(memory).wait(timeout=10))
asked = llm.responses.create(model="gpt-5-mini", instructions="Be brief.", input="How do you remember my coffee?")
print(asked.output_text)

# %% look inside, and end
for record in memory.list("ada").items:
    print(record.tags, record.content)
memory.close()
llm.close()
