//! Agents and models: chat, tools, prompts
