"""The rights: what is done under the login `rights`, for one person or about her. Nothing else opens what is sealed."""
