class Prices:
    @classmethod
    def load(cls, over=()):
        return cls()

    def cost(self, model, usage):
        return 0.0 if model == "offline" else None

    def described(self, model):
        return None
