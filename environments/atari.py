"""Atari games, straight from the emulator to what an agent looks at."""

from __future__ import annotations

import importlib
from typing import Any, Literal, SupportsInt

import gymnasium as gym
import numpy as np
from coach.core.errors import SettingError, nearest
from coach.core.registry import register
from coach.core.schema import Count, CountOrZero, Fraction
from gymnasium import spaces
from numpy.typing import NDArray

_SIDE = 84  # pixels of an observation, each way
_NOOP, _FIRE = 0, 1
_WATCH_FRAMES = 400  # after a lost life, in which a game may wait for FIRE
_STILL_FRAMES = 16  # of the same picture are taken for waiting


@register("environment", "atari")
class Atari(gym.Env[NDArray[np.uint8], np.int64]):
    """An Atari 2600 game as agents are commonly trained on it (arXiv:1312.5602, arXiv:1709.06009).

    One step holds an action for ``frame_skip`` frames and sees the brighter of the last two, pixel
    by pixel, grey and shrunk to 84 by 84. The observation is ``[stack, 84, 84]`` uint8, oldest
    first; an episode begins with its first picture repeated. The frames are those of Gymnasium's
    AtariPreprocessing at two thirds of its cost: the emulator is called directly, and only the two
    frames that count are fetched.

    Every game is a function of its seeds and its actions alone. Loading a game always leads to
    the same state, to which a reset returns: the emulator's own reset leaves traces of the last
    game in one game out of six. The number of idle frames and the sticky actions are drawn
    here, from the episode's seed, as ALE would draw them: its own generator takes a new seed only
    when the game is loaded again, which costs a tenth of a second.

    With ``episodic_life`` a lost life is terminal, and the next reset goes on with the same game
    (``continues_at_reset`` says so beforehand). A new game begins once all lives are lost.

    Some games wait for FIRE at their start and after each lost life. ``fire_reset`` presses it at
    both, in training and in evaluation, and again while the picture stands still in the 400 frames
    after a lost life, since Gopher does not heed it during its pause. The frames of these presses
    come before those of the agent's next action, and their rewards count to that step.

    Args:
        game: as in ``pong``, ``ms_pacman`` or ``MsPacman``.
        frame_skip: frames per step.
        noop_max: an episode begins after 1 to so many idle frames, drawn from its seed; or none.
        stack: pictures per observation.
        clip_rewards: give only the sign of the reward; returns are then no longer the game's score.
        episodic_life: a lost life ends the episode, and the next one goes on with the game.
        fire_reset: press FIRE for a step at a game's start and after each lost life, in games that
            have it.
        sticky: probability that a frame still gets the action of the frame before.
        full_action_space: all 18 actions, also those that the game takes for others.
        max_episode_frames: frames after which an episode is cut off (truncated).
        render_mode: ``rgb_array`` or none.
    """

    def __init__(
        self,
        game: str = "pong",
        frame_skip: Count = 4,
        noop_max: CountOrZero = 30,
        stack: Count = 4,
        clip_rewards: bool = False,
        episodic_life: bool = False,
        fire_reset: bool = True,
        sticky: Fraction = 0.0,
        full_action_space: bool = False,
        max_episode_frames: Count = 108_000,
        render_mode: Literal["rgb_array"] | None = None,
    ) -> None:
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 60 / frame_skip}
        self.game, self.frame_skip, self.noop_max = game, frame_skip, noop_max
        self.clip_rewards, self.episodic_life, self.sticky = clip_rewards, episodic_life, sticky
        self.max_episode_frames, self.render_mode = max_episode_frames, render_mode
        self._cv2 = importlib.import_module("cv2")
        self._ale = _emulator(game)
        minimal = [action.value for action in self._ale.getMinimalActionSet()]
        legal = [action.value for action in self._ale.getLegalActionSet()]
        self._actions = legal if full_action_space else minimal
        self._opening = (_FIRE,) * frame_skip if fire_reset and _FIRE in minimal else ()
        self._start = self._ale.cloneState(include_rng=True)
        screens = min(frame_skip, 2)
        self._screens = [np.empty(self._ale.getScreenDims(), np.uint8) for _ in range(screens)]
        self._stack = np.zeros((stack, _SIDE, _SIDE), np.uint8)
        self._frames, self._lives, self._held = 0, 0, _NOOP
        self._still_steps = max(_STILL_FRAMES // frame_skip, 1)
        self._watch_steps = _WATCH_FRAMES // frame_skip if self._opening else 0
        #: Whether the next reset goes on with the game, since a life was lost and others are left.
        self.continues_at_reset = False
        self._press, self._watched, self._still = False, 0, 0
        self.observation_space = spaces.Box(0, 255, self._stack.shape, np.uint8)
        self.action_space = spaces.Discrete(len(self._actions))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed, options=options)
        if self.continues_at_reset:
            self._watched = self._watch_steps
        else:
            self._begin_game()
        for move in self._opening:
            self._ale.act(move)
            self._held = move
        self._frames += len(self._opening)
        self._lives = self._ale.lives()
        self.continues_at_reset, self._press, self._still = False, False, 0
        self._ale.getScreenGrayscale(self._screens[0])
        self._stack[:] = self._shrunk(self._screens[0])
        return self._stack.copy(), {}

    def step(
        self, action: SupportsInt
    ) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        ale, reward, screens = self._ale, 0, self._screens
        moves = self._moves(self._actions[int(action)])
        seen = len(moves) - len(screens)  # frames before these are over by the time one looks
        for move in moves[:seen]:
            reward += ale.act(move)
        for move, screen in zip(moves[seen:], screens):
            reward += ale.act(move)  # once the game is over, this does nothing
            ale.getScreenGrayscale(screen)
        if len(screens) == 2:
            np.maximum(screens[0], screens[1], out=screens[0])
        # A new array each time, so that nobody's observation changes later.
        stack = np.empty_like(self._stack)
        stack[:-1] = self._stack[1:]
        self._shrunk(screens[0], stack[-1])
        if self._watched:
            self._watch(stack[-1])
        self._stack = stack
        self._frames += len(moves)
        terminated, lives = ale.game_over(with_truncation=False), ale.lives()
        truncated = self._frames >= self.max_episode_frames
        if lives < self._lives and not terminated:
            terminated = self.episodic_life
            self.continues_at_reset = terminated and not truncated
            self._press, self._watched, self._still = bool(self._opening), self._watch_steps, 0
        self._lives = lives
        value = float((reward > 0) - (reward < 0) if self.clip_rewards else reward)
        return stack, value, terminated, truncated, {}

    def render(self) -> Any:
        """The last frame in colours, ``[210, 160, 3]`` uint8; nothing without a ``render_mode``."""
        return self._ale.getScreenRGB() if self.render_mode else None

    def _begin_game(self) -> None:
        # Neither of the two suffices: a reset keeps some memory of the game before, and restoring
        # does not bring back all that draws the screen.
        self._ale.restoreState(self._start)
        self._ale.reset_game()
        idle = int(self.np_random.integers(1, self.noop_max + 1)) if self.noop_max else 0
        for _ in range(idle):
            self._ale.act(_NOOP)
        self._frames, self._held, self._watched = idle, _NOOP, 0

    def _watch(self, picture: NDArray[np.uint8]) -> None:
        """Let FIRE be pressed where the game stands still after a lost life."""
        self._watched -= 1
        self._still = self._still + 1 if np.array_equal(picture, self._stack[-1]) else 0
        if self._still == self._still_steps:
            self._press, self._still = True, 0

    def _moves(self, move: int) -> tuple[int, ...]:
        """What is held in each frame of a step."""
        opening: tuple[int, ...] = ()
        if self._press:
            opening, self._press, self._held = self._opening, False, _FIRE
        if not self.sticky:
            return opening + (move,) * self.frame_skip
        moves = list(opening)
        for draw in self.np_random.random(self.frame_skip):
            if draw >= self.sticky:
                self._held = move
            moves.append(self._held)
        return tuple(moves)

    def _shrunk(
        self, screen: NDArray[np.uint8], into: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        resized: NDArray[np.uint8] = self._cv2.resize(
            screen, (_SIDE, _SIDE), dst=into, interpolation=self._cv2.INTER_AREA
        )
        return resized


def _emulator(game: str) -> Any:
    """ALE with a game in it, always in the same state."""
    ale_py = importlib.import_module("ale_py")
    roms = importlib.import_module("ale_py.roms")
    names = {name.replace("_", ""): name for name in roms.get_all_rom_ids()}
    name = names.get(game.replace("_", "").lower())
    if name is None:
        raise SettingError(
            "game", f"there is no Atari game '{game}'", nearest(game, names.values())
        )
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    path = roms.get_rom_path(name)
    if ale_py.ALEInterface.isSupportedROM(path) is None:  # loading it would end the process
        raise SettingError("game", f"'{name}' cannot be played alone", "Choose another game.")
    ale = ale_py.ALEInterface()
    ale.setInt("random_seed", 0)
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(path)
    ale.reset_game()
    return ale
