"""Write a LLaMA of random weights for llama.cpp: `python tiny_llama.py FILE.gguf`, with the package `gguf`.

It has the parts of a real one and a vocabulary of single signs, and says nothing: it is there for the server
around it.
"""

import sys

import gguf
import numpy as np

WIDTH, NUM_LAYERS, NUM_HEADS, HIDDEN, CONTEXT = 64, 2, 4, 128, 16384


def write_model(path):
    """Write the model file."""
    rng = np.random.default_rng(0)
    signs = ["\u2581".encode(), *(bytes([c]) for c in range(33, 127))]
    tokens = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % i for i in range(256)), *signs]
    kinds = [2, 3, 3] + [6] * 256 + [1] * len(signs)  # unknown, control, bytes, normal
    scores = [0.0] * 259 + [-float(i) for i in range(len(signs))]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny-random-llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(NUM_LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(NUM_HEADS)
    writer.add_head_count_kv(NUM_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // NUM_HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(
        "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    )

    def add(name, *shape):
        writer.add_tensor(f"{name}.weight", rng.normal(0, 0.08, shape).astype(np.float32))

    def add_norm(name):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))

    add("token_embd", len(tokens), WIDTH)
    add_norm("output_norm")
    add("output", len(tokens), WIDTH)
    for i in range(NUM_LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{i}.{name}", WIDTH, WIDTH)
        add(f"blk.{i}.ffn_gate", HIDDEN, WIDTH)
        add(f"blk.{i}.ffn_up", HIDDEN, WIDTH)
        add(f"blk.{i}.ffn_down", WIDTH, HIDDEN)
        add_norm(f"blk.{i}.attn_norm")
        add_norm(f"blk.{i}.ffn_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write_model(sys.argv[1])
