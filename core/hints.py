"""Where a setting stands that was looked for elsewhere, or under another framework's name."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from coach.core.registry import entries, find

#: Groups of settings that are no parts, and the classes whose constructors list them.
SECTIONS = {
    "run": ("coach.runners.settings", "RunSettings"),
    "evaluation": ("coach.runners.settings", "EvaluationSettings"),
    "target": ("coach.runners.settings", "TargetSettings"),
    "environment": ("coach.environments.making", "EnvironmentSettings"),
    "agent.network": ("coach.architectures.network", "Network"),
}

#: Where parts of a kind stand in a preset.
PLACES = {
    "optimizer": "optimizer",
    "memory": "memory",
    "sampler": "memory.sampler",
    "agent": "agent",
    "exploration": "agent.exploration",
    "embedder": "agent.network.embedder",
    "middleware": "agent.network.middleware",
    "head": "agent.network.heads.q",
    "environment": "environment.kwargs",
}

# Our path: what it is called in Stable-Baselines3, RLlib, CleanRL, Tianshou, Spinning Up, Dopamine,
# Acme, Sample Factory and the papers' own code.
_NAMES = {
    "memory.discount": "gamma discount_factor discounting discount_rate",
    "memory.capacity": "buffer_size buffer_capacity replay_size replay_capacity memory_size "
    "memory_capacity replay_buffer_size replay_buffer_capacity max_replay_size "
    "replay_buffer_config max_buffer_size",
    "memory.batch_size": "minibatch_size mini_batch_size sgd_minibatch_size num_minibatches "
    "n_minibatches nminibatches num_mini_batch num_batches_per_epoch bs train_batch_size "
    "train_batch_size_per_learner learner_batch_size",
    "memory.warmup": "learning_starts learn_start learn_starts start_timesteps start_steps "
    "update_after warmup_steps min_replay_history min_replay_size min_size_before_training "
    "prefill initial_collect_steps start_training random_steps replay_start_size "
    "num_steps_sampled_before_learning_starts learning_start",
    "memory.updates_per_step": "train_freq train_frequency train_every update_every update_period "
    "update_per_step gradient_steps utd utd_ratio replay_ratio samples_per_insert "
    "training_intensity policy_frequency_updates update_frequency learn_every",
    "memory.n_step": "n_steps nsteps estimation_step update_horizon n_step_return nstep "
    "multi_step multistep n_step_returns",
    "memory.horizon": "n_steps nsteps num_steps rollout_length rollout_fragment_length rollout "
    "n_rollout_steps unroll_length step_per_collect timesteps_per_batch steps_per_epoch "
    "local_steps_per_epoch train_batch_size train_batch_size_per_learner rollout_steps",
    "memory.epochs": "n_epochs num_epochs update_epochs num_sgd_iter noptepochs ppo_epoch "
    "ppo_epochs repeat_per_collect repeat train_pi_iters train_v_iters sgd_iters K_epochs",
    "memory.length": "sequence_length max_seq_len seq_len trace_length replay_sequence_length",
    "memory.burn_in": "burnin burn_in_length replay_burn_in",
    "memory.sampler": "prioritized_replay prioritized use_per per replay_scheme "
    "replay_buffer_class",
    "memory.sampler.alpha": "prioritized_replay_alpha per_alpha priority_exponent",
    "memory.sampler.beta": "prioritized_replay_beta per_beta importance_sampling_exponent "
    "prioritized_replay_beta0 final_prioritized_replay_beta",
    "memory.sampler.epsilon": "prioritized_replay_eps per_eps",
    "optimizer.lr": "learning_rate lr_schedule learning_rate_schedule step_size lr_decay "
    "anneal_lr linear_decay_lr lrate stepsize",
    "optimizers.actor.lr": "actor_lr actor_learning_rate policy_lr pi_lr policy_learning_rate",
    "optimizers.critic.lr": "critic_lr critic_learning_rate q_lr vf_lr value_lr qf_lr",
    "optimizers.temperature.lr": "alpha_lr ent_coef_lr entropy_lr",
    "optimizer.eps": "adam_epsilon adam_eps optimizer_epsilon opt_eps rms_prop_eps "
    "rmsprop_epsilon",
    "optimizer.max_grad_norm": "grad_clip gradient_clip clip_grad_norm grad_norm max_norm "
    "clip_gradients gradient_clipping max_gradient_norm grad_clipping grad_norm_clip "
    "max_grad_clip clip_grad",
    "optimizer.weight_decay": "l2 l2_reg weight_decay_coef",
    "optimizer.betas": "adam_betas beta1 beta2",
    "optimizer.type": "optimizer_class optim optimizer_name use_rms_prop opt",
    "agent.type": "algo algorithm agent_type agent_class",
    "agent.target_tau": "tau polyak target_network_tau soft_update_tau polyak_tau target_smoothing "
    "target_smoothing_coefficient",
    "agent.target_every": "target_update_interval target_network_frequency target_update_freq "
    "target_network_update_freq target_update_period target_update_every target_update "
    "target_network_update_frequency target_update_frequency hard_update_interval",
    "agent.double": "double_q use_double is_double double_dqn double_q_learning",
    "agent.exploration": "exploration_config exploration_strategy exploration_policy",
    "agent.exploration.epsilon": "exploration_fraction exploration_initial_eps "
    "exploration_final_eps start_e end_e eps_start eps_end eps_decay epsilon_start epsilon_end "
    "epsilon_decay epsilon_timesteps initial_epsilon final_epsilon epsilon_train eps_train "
    "epsilon_decay_period eps eps_greedy eps_train_final",
    "agent.exploration.evaluation_epsilon": "eps_test epsilon_eval eval_epsilon eval_eps",
    "agent.exploration.scale": "action_noise exploration_noise expl_noise act_noise noise_std "
    "noise_sigma",
    "agent.entropy_coefficient": "ent_coef entropy_coeff entropy_coef entropy_cost ent_weight "
    "entropy_beta entropy_weight exploration_loss_coeff",
    "agent.value_coefficient": "vf_coef vf_loss_coeff value_coef value_loss_coef vf_cost "
    "baseline_cost value_loss_coeff value_loss_weight",
    "agent.temperature": "ent_coef alpha initial_alpha init_temperature init_alpha "
    "initial_temperature entropy_temperature",
    "agent.learn_temperature": "auto_alpha autotune learn_alpha auto_entropy "
    "automatic_entropy_tuning",
    "agent.clip": "clip_range clip_param clip_coef eps_clip clip_ratio clip_epsilon ppo_clip "
    "ratio_clip clipping_epsilon cliprange ppo_clip_ratio",
    "agent.value_clip": "clip_range_vf vf_clip_param clip_vloss vf_clip ppo_clip_value "
    "value_clip_range",
    "agent.gae_lambda": "lambda lam lambda_ gae gae_lam",
    "agent.trace_lambda": "lambda lam lambda_ td_lambda q_lambda vtrace_lambda",
    "agent.rho_clip": "vtrace_clip_rho_threshold vtrace_rho clip_rho_threshold",
    "agent.c_clip": "vtrace_c clip_c_threshold",
    "agent.normalize_advantages": "normalize_advantage advantage_normalization norm_adv adv_norm "
    "standardize_advantages advantage_norm normalize_adv",
    "agent.munchausen": "munchausen_dqn m_dqn munchausen_coef",
    "agent.network": "policy_kwargs model policy_network net network_architecture policy "
    "network_kwargs network_config",
    "agent.network.heads": "dueling dueling_dqn head dueling_param use_dueling",
    "agent.network.embedder": "features_extractor_class features_extractor encoder "
    "encoder_conv_architecture conv_filters feature_extractor cnn",
    "agent.network.embedder.hidden": "net_arch hidden_sizes fcnet_hiddens hidden_dim hidden_size "
    "hiddens fc_layers hidden_layers num_hidden hidden_units encoder_mlp_layers layers "
    "post_fcnet_hiddens",
    "agent.network.embedder.activation": "activation_fn nonlinearity fcnet_activation act_fn "
    "activation_function",
    "agent.network.middleware": "use_lstm recurrent use_rnn rnn_type lstm use_recurrent use_gru",
    "agent.network.middleware.hidden": "lstm_cell_size lstm_hidden_size rnn_size rnn_hidden_size",
    "agent.network.share_trunk": "share_features_extractor vf_share_layers shared_network "
    "actor_critic_share_weights shared_encoder",
    "agent.network.normalize_observations": "norm_obs normalize_obs obs_norm observation_filter "
    "normalize_input normalize_observation normalize",
    "agent.network.normalize_rewards": "norm_reward normalize_reward reward_scaling rew_norm "
    "reward_norm normalize_returns reward_normalization reward_scale",
    "agent.network.heads.q.atoms": "num_atoms n_atoms",
    "agent.network.heads.q.lowest": "v_min vmin q_min",
    "agent.network.heads.q.highest": "v_max vmax q_max",
    "agent.network.heads.q.quantiles": "n_quantiles num_quantiles",
    "agent.network.heads.q.noisy": "noisy_net noisy_nets use_noisy noisy_dqn is_noisy",
    "agent.critic.heads.q.ensemble": "n_critics num_critics num_qs num_q n_qs",
    "environment.id": "env env_id env_name game_name environment_id environment_name task "
    "task_name",
    "environment.kwargs": "env_kwargs env_config env_args environment_kwargs",
    "environment.wrappers": "env_wrapper wrapper wrapper_class env_wrappers",
    "environment.max_episode_steps": "max_episode_length time_limit max_ep_len episode_length "
    "max_steps_per_episode max_episode_len",
    "environment.kwargs.frame_skip": "frameskip action_repeat",
    "environment.kwargs.stack": "frame_stack stack_size num_stack n_stack env_framestack",
    "environment.kwargs.sticky": "repeat_action_probability sticky_actions",
    "environment.kwargs.clip_rewards": "clip_reward reward_clip",
    "run.envs": "n_envs num_envs num_envs_per_env_runner num_envs_per_worker training_num "
    "n_training_envs n_env num_environments num_train_envs",
    "run.workers": "num_workers num_env_runners n_workers num_actors n_jobs num_rollout_workers "
    "num_processes n_actors ncpu num_cpu",
    "run.steps": "total_timesteps num_timesteps n_timesteps max_steps total_steps num_frames "
    "total_frames training_steps num_env_steps max_timesteps max_env_steps train_for_env_steps "
    "timesteps total_env_steps timesteps_total max_frames",
    "run.seed": "random_seed rng_seed random_state",
    "run.device": "num_gpus cuda use_cuda gpu no_cuda num_gpus_per_learner",
    "run.threads": "num_threads torch_threads torch_num_threads",
    "run.compile": "torch_compile jit",
    "run.log_every": "log_interval log_freq log_frequency log_period",
    "run.checkpoint_every": "save_freq checkpoint_freq save_every checkpoint_frequency "
    "checkpoint_interval save_interval save_frequency checkpoint_period",
    "run.keep_checkpoints": "keep_checkpoints_num num_to_keep max_checkpoints",
    "evaluation.every": "eval_freq eval_frequency evaluation_interval eval_interval eval_every "
    "eval_period evaluate_every test_every",
    "evaluation.episodes": "n_eval_episodes evaluation_duration eval_episodes num_eval_episodes "
    "test_num episode_per_test num_test_episodes evaluation_num_episodes",
    "target.return": "reward_threshold stop_reward target_reward stop_value episode_reward_mean "
    "target_score",
}  # fmt: skip

#: Another framework's name -> where it stands in a preset of ours.
ALIASES: dict[str, list[str]] = {}
for _path, _names in _NAMES.items():
    for _name in _names.split():
        ALIASES.setdefault(_name.casefold(), []).append(_path)


def elsewhere(name: str, key: str = "", known: frozenset[str] = frozenset()) -> str:
    """The sentence that says where a setting stands, if it is known under that name at all.

    Args:
        name: as it was written.
        key: path of the part or section that it was written in.
        known: settings of that part; of several places one there is the only one of interest.
    """
    plain = name.casefold().replace("-", "_")
    found = [*ALIASES.get(plain, []), *places(plain)]
    paths = [path for path in dict.fromkeys(found) if path != f"{key}.{name}"]
    here = [path for path in paths if path in {f"{key}.{setting}" for setting in known}]
    paths = here or paths
    if not paths:
        return ""
    return f"In Coach that is {' or '.join(f'{path}{_holders(path)}' for path in paths[:5])}."


def places(name: str) -> list[str]:
    """Every path of a preset at which a setting of that name may stand, sections first."""
    found = [f"{section}.{name}" for section, cls in _sections() if name in _settings_of(cls)]
    return found + [
        f"{place}.{name}"
        for kind, place in PLACES.items()
        if any(name in _settings_of(cls) for _, cls in _parts(kind))
    ]


def holders(path: str) -> list[str] | None:
    """The parts that have the setting at a path; ``None`` where it does not hang on a part.

    Raises:
        LookupError: there is no such setting.
    """
    place, _, name = path.rpartition(".")
    place = "optimizer" if place.startswith("optimizers.") else place
    place = place.replace("agent.critic", "agent.network").replace("agent.actor", "agent.network")
    for section, cls in _sections():
        if place == section and name in _settings_of(cls):
            return None
    for kind, where in PLACES.items():
        if where == place:
            if name == "type":
                return None
            having = [part for part, cls in _parts(kind) if name in _settings_of(cls)]
            if having:
                return None if len(having) == len(_parts(kind)) else having
    raise LookupError(f"no setting stands at {path}")


def _holders(path: str) -> str:
    parts = holders(path)
    if not parts:
        return ""
    more = ", ..." if len(parts) > 4 else ""
    return f" ({', '.join(parts[:4])}{more})"


def section_class(name: str) -> type:
    """The class whose constructor lists the settings of one of `SECTIONS`."""
    module, cls = SECTIONS[name]
    found: type = getattr(importlib.import_module(module), cls)
    return found


def _sections() -> Iterator[tuple[str, type]]:
    return ((name, section_class(name)) for name in SECTIONS)


def _parts(kind: str) -> list[tuple[str, type]]:
    return [(entry.name, find(kind, entry.name)) for entry in entries(kind)]


def _settings_of(cls: type) -> dict[str, object]:
    from coach.core.schema import parameters  # which imports this module

    return dict(parameters(cls))
