"""The engine over HTTP: OpenAI's protocol, and what monitors and other programs of this project read."""
