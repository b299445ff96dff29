# The stages of a recipe with images, sourced by its run.sh, which has set `config` and a function `get_data` and gone to the
# recipe's folder. Every stage may be run again; what is already there is kept.

usage() {
    cat <<HELP
Usage: run.sh [--stage N] [--stop_stage N] [--config FILE] [--tag NAME] [other options] [-- --KEY VALUE ...]

  --stage N        first stage: 0 data, 1 train, 2 evaluate          (default 0)
  --stop_stage N   last stage                                        (default 2)
  --config FILE    the experiment                                    (default $config)
  --tag NAME       name of the experiment                            (default: the config's name)
  --exp DIR        folder of the experiment                          (default exp/TAG)
  --data DIR       where the images are                              (default data)

What follows -- goes to \`sepml train\`, such as: -- --fit.epochs 5 --seed 1
HELP
}

# The data set's folders, for which the user has to ask its owners: need_folders WHERE NAME...
need_folders() {
    local where=$1 name
    shift
    for name; do
        [ -d "$data/$name" ] || { echo "run.sh: $data has no folder $name; $where, and name its folder by --data" >&2; exit 1; }
    done
}

stage=0 stop_stage=2 tag= exp= data=data
OPTIONS="stage stop_stage config tag exp data"
parse_options "$@"
shift "$PARSED"
tag=${tag:-$(basename "$config" .yaml)}
exp=${exp:-exp/$tag}

if run_stage 0 "data"; then
    get_data
fi

if run_stage 1 "train"; then
    sepml train --config "$config" --exp "$exp" --data.root "$data" "$@"
fi

if run_stage 2 "evaluate"; then
    sepml evaluate --model "$exp" -o "$exp/evaluation"
fi
